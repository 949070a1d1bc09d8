"""The output files of one song: levels, tags, the picture."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from audio_files import RATE, encode, load, noise, save

from bsmamba2.errors import BsmError
from bsmamba2.runtime.audio.reader import AudioReader
from bsmamba2.runtime.audio.tags import NAMES, clean_tags
from bsmamba2.runtime.audio.writing import FORMATS, AudioWriter, OutputFormat
from bsmamba2.runtime.songs.jobs import Job
from bsmamba2.runtime.songs.stem_files import StemFiles

TAGS = {
    "title": "A song — Lied \N{MUSICAL SYMBOL G CLEF}",
    "artist": "Ärzte & Söhne",
    "album": "Nr. 1",
    "date": "1999",
    "tracknumber": "7",
    "genre": "Folk",
    "comment": "no comment",
}


Write = Callable[..., dict[str, Path]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Returns a function that writes stems, as those of the song that they add up to."""

    def write(stems: dict[str, np.ndarray], output: OutputFormat) -> dict[str, Path]:
        song = save(tmp_path / "song.wav", sum(stems.values()), subtype="FLOAT")
        paths = {stem: tmp_path / f"{stem}.{output.name}" for stem in stems}
        job = Job(source=song, name="song", outputs=paths)
        with AudioReader(song) as reader, StemFiles(reader, job, output) as files:
            for start in range(0, reader.frames or 0, 30_000):
                files.write({stem: x[:, start : start + 30_000] for stem, x in stems.items()})
            files.complete()
        return paths

    return write


def loud() -> dict[str, np.ndarray]:
    """Two stems, of which the vocals peak at 1.6."""
    voice = noise()
    return {"vocals": voice * (1.6 / np.abs(voice).max()), "instrumental": noise() * 0.1}


@pytest.mark.parametrize(("name", "depth"), [("wav", "float"), ("wav", "16"), ("flac", "24")])
def test_rescaled_stems_have_one_gain_and_no_clipped_sample(
    write: Write, name: str, depth: str,
    caplog: pytest.LogCaptureFixture, tmp_path: Path,
):  # fmt: skip
    stems = loud()
    paths = write(stems, OutputFormat(name, depth, "rescale"))
    assert "4.08 dB quieter" in caplog.text
    assert "clipped" not in caplog.text
    for stem, samples in stems.items():
        assert np.abs(load(paths[stem]) - samples / 1.6).max() <= 2.0**-15
    assert {path.name for path in tmp_path.iterdir()} == {
        "song.wav", *(path.name for path in paths.values())
    }  # fmt: skip


def test_stems_below_full_scale_are_not_rescaled(write: Write, caplog: pytest.LogCaptureFixture):
    stems = {"vocals": noise(), "instrumental": -noise()}
    paths = write(stems, OutputFormat("wav", None, "rescale"))
    assert all(np.array_equal(load(paths[stem]), stems[stem]) for stem in stems)
    assert not caplog.records


def test_what_cannot_be_kept_or_encoded_says_how_to_mend_it(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(error: Exception) -> Callable[..., None]:
        def fail(*arguments: object, **options: object) -> None:
            raise error

        return fail

    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "TemporaryFile", refuse(full))
        with pytest.raises(BsmError, match=r"\(make room, .*\): No space left on device\.$"):
            write(loud(), OutputFormat("wav", clip="rescale"))
    unknown = ValueError("Invalid combination of format, subtype and endian")
    song = save(tmp_path / "song.wav", noise())
    job = Job(source=song, name="song", outputs={"vocals": tmp_path / "a.mp3"})
    with AudioReader(song) as reader, monkeypatch.context() as patched:
        patched.setattr(soundfile.SoundFile, "__init__", refuse(unknown))  # of an old libsndfile
        with pytest.raises(BsmError, match=r"a\.mp3: Invalid combination of format"):
            StemFiles(reader, job, OutputFormat("mp3"))


def test_clamped_floats_are_cut_off_and_counted(write: Write, caplog: pytest.LogCaptureFixture):
    stems = loud()
    over = int((np.abs(stems["vocals"]) > 1).sum())
    paths = write(stems, OutputFormat("wav", "float", "clamp"))
    assert np.array_equal(load(paths["vocals"]), stems["vocals"].clip(-1, 1))
    assert f"{over} of {stems['vocals'].size} samples of {paths['vocals']}" in caplog.text
    assert len(caplog.records) == 1


# --- tags ---


@pytest.mark.parametrize("source", ["wav", "flac", "ogg", "mp3", "m4a"])
@pytest.mark.parametrize("target", FORMATS)
def test_tags_survive_the_way_through(tmp_path: Path, source: str, target: str):
    song = tmp_path / f"song.{source}"
    if source == "m4a":
        names = {"tracknumber": "track"}
        encode(song, "alac", noise(), **{names.get(k, k): v for k, v in TAGS.items()})
    else:
        with soundfile.SoundFile(song, "w", RATE, 2) as file:
            for name, text in TAGS.items():
                setattr(file, name, text)
            file.write(noise().T)
    path = tmp_path / f"vocals.{target}"
    job = Job(source=song, name="song", outputs={"vocals": path})
    with AudioReader(song) as reader, StemFiles(reader, job, OutputFormat(target)) as files:
        files.write({"vocals": noise()})
        files.complete()
    with AudioReader(path) as reader:
        assert reader.tags == TAGS


@pytest.mark.parametrize("target", FORMATS)
def test_tags_are_in_any_script(tmp_path: Path, target: str):
    """FFmpeg reads the same tags; they do not change an MP3's samples."""
    tags = {"title": "Über 日本", "artist": "Söhne", "date": "2020-05-01", "comment": "ж" * 200}
    paths = [tmp_path / f"{name}.{target}" for name in ("with", "without")]
    for path, texts in zip(paths, (tags, {}), strict=True):
        with AudioWriter(path, OutputFormat(target), RATE, 2, tags=texts) as writer:
            writer.write(noise())
    with av.open(str(paths[0])) as container:
        found = {**container.metadata, **container.streams.audio[0].metadata}
    found = {name.lower(): text for name, text in found.items()}
    assert {name: found.get(name) for name in tags} == tags
    samples = [soundfile.read(path)[0] for path in paths]
    assert np.array_equal(*samples)


def test_tags_are_printable_short_and_known():
    raw = {
        "TITLE": "two\nlines\0", "encoder": "Lavf", "track": "3", "comment": "x" * 9999,
        "artist": "\N{REPLACEMENT CHARACTER}rzte", "genre": " ", "tracknumber": "4",
    }  # fmt: skip
    assert clean_tags(raw, {"title": "other", "year": "2001"}) == {
        "title": "two lines", "date": "2001", "tracknumber": "3", "comment": "x" * 2000
    }  # fmt: skip
    assert set(clean_tags(dict.fromkeys(NAMES, "x"))) == set(NAMES)
