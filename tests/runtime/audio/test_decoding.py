"""Containers read by PyAV, and sections of files of every kind."""

from __future__ import annotations

import itertools
import sys
from enum import Flag
from pathlib import Path

import numpy as np
import pytest
from audio_files import ENCODINGS, RATE, damaged, encode, mux, noise, read, save
from songs import decoded, excerpt

from bsmamba2.errors import AudioError, BsmError, MissingExtraError
from bsmamba2.runtime.audio.reader import AudioReader, Section


def test_other_containers_are_read_by_pyav(tmp_path: Path):
    samples = noise()
    decoded = read(encode(tmp_path / "a.m4a", "alac", samples))
    assert decoded.shape == samples.shape
    assert np.abs(decoded - samples).max() < 1e-4  # 16 or 24 bits
    assert read(encode(tmp_path / "a.mka", "pcm_s16le", samples)).shape == samples.shape


def test_titles_need_not_be_utf_8(tmp_path: Path):
    path = encode(tmp_path / "a.m4a", "alac", noise())
    content = path.read_bytes()
    assert b"A title" in content
    path.write_bytes(content.replace(b"A title", b"\xc0 title"))
    assert read(path).shape == noise().shape


def test_without_pyav_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = encode(tmp_path / "a.m4a", "alac", noise())
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"bsmamba2\[av\]"):
        read(path)


def test_with_an_old_pyav_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = encode(tmp_path / "a.m4a", "alac", noise())
    old = Flag("Disposition", {"default": 1})  # as it was before 17.1
    monkeypatch.setattr("av.stream.Disposition", old)
    with pytest.raises(MissingExtraError, match=r"bsmamba2\[av\]"):
        read(path)


def test_an_mp3_in_a_wav_has_the_length_that_is_decoded(tmp_path: Path):
    path = encode(tmp_path / "a.wav", "libmp3lame", noise())
    assert 0 <= read(path).shape[1] - noise().shape[1] < 2 * 1152 + 1105
    with pytest.raises(AudioError, match="truncated"):
        read(damaged(path, cut=0.9))


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.mp4", "libmp3lame"),
                                             ("a.mov", "aac"), ("a.mka", "aac")])  # fmt: skip
def test_priming_samples_are_taken_out(tmp_path: Path, name: str, codec: str):
    samples = noise()
    found = read(encode(tmp_path / name, codec, samples))[0, RATE - 2000 : RATE + 4000]
    match = np.correlate(found, samples[0, RATE : RATE + 2000], "valid")
    assert match.argmax() == 2000


def movie(path: Path, tracks: list[np.ndarray], default: int | None = None) -> Path:
    """A video with several audio tracks."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25, width=32, height=32, pix_fmt="yuv420p")
        sounds = [container.add_stream("pcm_s16le", rate=RATE, layout="stereo") for _ in tracks]
        for index, sound in enumerate(sounds):
            sound.disposition = av.stream.Disposition(int(index == default))
        for _ in range(10):
            container.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(video.encode(None))
        for sound, samples in zip(sounds, tracks, strict=True):
            mux(container, sound, samples)
    return path


@pytest.mark.parametrize(("default", "chosen"), [(None, 0), (1, 1), (2, 2)])
def test_of_several_tracks_of_a_video_the_default_is_read(
    tmp_path: Path, default: int | None, chosen: int
):
    tracks = [noise() * scale for scale in (0.1, 0.5, 1)]
    found = read(movie(tmp_path / "a.mkv", tracks, default))
    assert found.shape == tracks[0].shape
    assert np.abs(found - tracks[chosen]).max() < 1e-4


def test_of_a_stem_file_the_mixture_is_read():
    song = excerpt()
    assert np.array_equal(read(song).T, decoded(song, 0))


def test_a_video_without_sound_is_an_error(tmp_path: Path):
    with pytest.raises(AudioError, match="no audio track"):
        read(movie(tmp_path / "a.mkv", []))


def test_a_cover_is_no_obstacle(tmp_path: Path):
    av = pytest.importorskip("av")
    path, samples = tmp_path / "a.m4a", noise()
    with av.open(str(path), "w", format="mp4") as container:
        cover = container.add_stream("mjpeg", rate=1, width=32, height=32, pix_fmt="yuvj420p")
        cover.disposition = av.stream.Disposition.attached_pic
        sound = container.add_stream("alac", rate=RATE, layout="stereo")
        container.mux(cover.encode(av.VideoFrame(32, 32, "yuvj420p")))
        mux(container, sound, samples)
    assert np.abs(read(path) - samples).max() < 1e-4


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("3.0", 3)])
def test_pyav_reads_up_to_two_channels(tmp_path: Path, layout: str, channels: int):
    path = encode(tmp_path / "a.m4a", "alac", noise(channels=channels), layout)
    if channels == 1:
        assert read(path).shape[0] == 1
    else:
        with pytest.raises(AudioError, match="3 channels"):
            read(path)


@pytest.mark.parametrize(("name", "codec"),
                         [("a.mka", "aac"), ("a.m4a", "aac"), ("a.m4a", "alac")])  # fmt: skip
def test_an_end_that_is_missing_is_missed(tmp_path: Path, name: str, codec: str):
    path = encode(tmp_path / name, codec, noise())
    with pytest.raises(AudioError, match=r"damaged|truncated"):
        read(damaged(path, cut=0.6))


def test_a_file_that_names_other_files_is_refused(tmp_path: Path):
    encode(tmp_path / "secret.mka", "aac", noise())
    for text in (
        "ffconcat version 1.0\nfile secret.mka\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:3.0,\nsecret.mka\n#EXT-X-ENDLIST\n",
    ):
        (tmp_path / "a.m4a").write_text(text)
        with pytest.raises(AudioError, match="not audio"):
            read(tmp_path / "a.m4a")


# --- sections ---


def section_of(path: Path, start_s: float, duration_s: float | None = None) -> np.ndarray:
    with AudioReader(path, section=Section(start_s, duration_s)) as reader:
        samples = np.concatenate(list(reader.blocks()), axis=1)
        assert not reader.exact or reader.frames == samples.shape[1]
    return samples


@pytest.mark.parametrize("name", [*ENCODINGS, "a.m4a", "a.mka"])
@pytest.mark.parametrize(("start_s", "duration_s"),
                         [(0, 1e-9), (0.7, 0.3), (1.234567, 1.1), (2.5, None),
                          (1, 99)])  # fmt: skip
def test_a_section_is_a_slice_of_the_song(
    tmp_path: Path, name: str, start_s: float, duration_s: float | None
):
    if name in ENCODINGS:
        path = save(tmp_path / name, noise())
    else:
        path = encode(tmp_path / name, "aac", noise())
    start, stop = round(start_s * RATE), None
    if duration_s is not None:
        stop = max(start + 1, round((start_s + duration_s) * RATE))
    found = section_of(path, start_s, duration_s)
    assert np.array_equal(found, read(path)[:, start:stop])


def test_sections_side_by_side_are_the_song(tmp_path: Path):
    path = save(tmp_path / "b.flac", noise())
    ends = [0, 0.1000042, 0.77777, 2.9999]
    parts = [section_of(path, a, b - a) for a, b in itertools.pairwise(ends)]
    parts.append(section_of(path, ends[-1]))
    assert np.array_equal(np.concatenate(parts, axis=1), read(path))


def test_only_the_section_must_be_sound(tmp_path: Path):
    samples = noise()
    samples[0, 0] = np.nan
    path = save(tmp_path / "a.wav", samples)
    assert np.array_equal(section_of(path, 1, 1), samples[:, RATE : 2 * RATE])
    samples[0, 2 * RATE] = np.nan
    with pytest.raises(AudioError, match=r"at 2\.000 s"):
        section_of(save(path, samples), 1)


@pytest.mark.parametrize("section", [(-1, None), (0, 0), (0, -1), (np.nan, 1), (0, np.inf)])
def test_impossible_sections_are_refused(section: tuple[float, float | None]):
    with pytest.raises(BsmError, match="seconds, not"):
        Section(*section)
