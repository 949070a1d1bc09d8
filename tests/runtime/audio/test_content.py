"""The content of a file decides how it is read, not its suffix; no decoder prints."""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from audio_files import RATE, encode, load, noise, read, save, tones

from bsmamba2.errors import AudioError, BsmError, MissingExtraError

SUFFIXES = (".wav", ".flac", ".mp3", ".opus", ".oga", ".m4a", ".raw", ".aac", "")


@pytest.mark.parametrize(("suffix", "codec"),
                         [(".m4a", "aac"), (".aac", "aac"), (".webm", "libopus"), (".mka", "flac"),
                          (".oga", "flac"), (".wav", "ac3"), (".ac3", "ac3"), (".wav", "pcm_s16le"),
                          (".mp3", "libmp3lame"), (".mp2", "mp2"), (".w64", "pcm_f32le"),
                          (".tta", "tta"), (".wv", "wavpack")])  # fmt: skip
def test_content_decides_and_not_the_suffix(tmp_path: Path, suffix: str, codec: str):
    song = encode(tmp_path / f"plain{suffix}", codec, tones(RATE, 2))
    expected = read(song)
    assert RATE - 1152 <= expected.shape[1] < RATE + 5 * 1536
    for other in SUFFIXES:
        assert np.array_equal(read(Path(shutil.copy(song, tmp_path / f"other{other}"))), expected)


def test_without_pyav_the_sentence_is_true_whatever_the_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    song = encode(tmp_path / "a.m4a", "aac", tones(RATE, 2))
    monkeypatch.setitem(sys.modules, "av", None)
    for suffix in SUFFIXES:
        path = Path(shutil.copy(song, tmp_path / f"b{suffix}"))
        with pytest.raises(
            MissingExtraError, match=rf"^libsndfile cannot read .*b{suffix};.*\[av\]"
        ):
            read(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"A text.\n" * 1000, bytes(50_000), b"\xff" * 50_000,
                                     random.Random(0).randbytes(50_000),
                                     b"\xff\xfb\x90\x64" + random.Random(2).randbytes(50_000),
                                     b"ID3\x04\0\0\0\0\x01\0" + bytes(50_000)])  # fmt: skip
def test_what_no_decoder_reads_is_not_audio(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, content: bytes
):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(AudioError, match="is not audio or is damaged"):
        read(path)
    assert capfd.readouterr() == ("", "")


# --- MP3 ---


def mp3(path: Path, n: int = RATE) -> bytes:
    return save(path, noise(n) + tones(n, 2)).read_bytes()


@pytest.mark.parametrize("seed", range(60))
def test_no_decoder_prints_about_damage(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], seed: int
):
    pytest.importorskip("av")
    content, chance = bytearray(mp3(tmp_path / "a.mp3")), random.Random(seed)
    at = chance.randrange(len(content))
    match seed % 6:
        case 0:
            for _ in range(100):
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        case 1:
            del content[at:]
        case 2:
            del content[at : at + chance.randrange(1, 5000)]
        case 3:
            content[at:at] = chance.randbytes(3000)
        case 4:
            content[at : at + 3000] = bytes(3000)
        case 5:
            for _ in range(5):
                content[chance.randrange(600)] ^= 1 << chance.randrange(8)
    (tmp_path / "b.mp3").write_bytes(content)
    with contextlib.suppress(BsmError):
        read(tmp_path / "b.mp3")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9, 0.97])
def test_an_mp3_that_lacks_frames_it_states_is_refused(tmp_path: Path, cut: float):
    content = mp3(tmp_path / "a.mp3", 5 * RATE)
    (tmp_path / "a.mp3").write_bytes(content[: int(cut * len(content))])
    with pytest.raises(AudioError, match=r"damaged"):
        read(tmp_path / "a.mp3")


@pytest.mark.parametrize("tag", [b"", b"ID3\x04\0\0\0\0\x01\0" + bytes(128)])
@pytest.mark.parametrize("after", [b"", b"TAG" + bytes(125), b"APETAGEX" + bytes(500), bytes(9000),
                                   b"LYRICSBEGIN" + b"x" * 200,
                                   random.Random(4).randbytes(3000)])  # fmt: skip
def test_what_surrounds_an_mp3_is_no_sound(tmp_path: Path, tag: bytes, after: bytes):
    pytest.importorskip("av")
    content = mp3(tmp_path / "a.mp3")
    expected = load(tmp_path / "a.mp3")
    (tmp_path / "b.mp3").write_bytes(tag + content + after)
    found = read(tmp_path / "b.mp3")
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 5e-6


@pytest.mark.parametrize("junk", [bytes(700), random.Random(3).randbytes(700)])
def test_an_mp3_is_found_after_junk(tmp_path: Path, junk: bytes):
    pytest.importorskip("av")
    content = mp3(tmp_path / "a.mp3")
    expected = load(tmp_path / "a.mp3")
    (tmp_path / "b.mp3").write_bytes(junk + content)
    found = read(tmp_path / "b.mp3")
    shift = 1152 + 1105  # FFmpeg takes the header for a silent frame and keeps the priming samples
    assert np.abs(found[:, shift : shift + RATE // 2] - expected[:, : RATE // 2]).max() < 5e-6
