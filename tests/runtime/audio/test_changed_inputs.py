"""Songs whose files are replaced, cut or written to while they are read."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import audio_files
import numpy as np
import pytest
from audio_files import RATE, load, noise
from small_engines import FunctionEngine, real_mask

from bsmamba2.errors import AudioError, FileError
from bsmamba2.runtime.audio.reader import AudioReader, Section
from bsmamba2.runtime.audio.source_file import SourceFile
from bsmamba2.runtime.audio.writing import OutputFormat
from bsmamba2.runtime.separation.separator import Separator
from bsmamba2.runtime.songs.jobs import Job
from bsmamba2.runtime.songs.separate_files import separate_file

N = 8 * RATE


def save(path: Path, n: int = N, level: float = 0.1) -> np.ndarray:
    """Writes a song; returns the samples that its file holds, (channels, n)."""
    return load(audio_files.save(path, noise(n, level=level), subtype="PCM_16"))


def replace(path: Path) -> None:
    """Replaces the file by another song of the same length."""
    save(path.with_name(f"other{path.suffix}"), level=0.2)
    path.with_name(f"other{path.suffix}").replace(path)


def overwrite(path: Path) -> None:
    """Writes another song of the same length into the file."""
    save(path, level=0.2)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 4)


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(100_000))


def shorten(path: Path) -> None:
    """Writes a shorter song into the file."""
    save(path, 2 * RATE)


def separate(path: Path, change: Callable[[Path], None], out: Path) -> None:
    """Changes the file while its third chunk is separated and the rest is unread."""
    calls = 0

    def mask(spectrum: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 3:
            change(path)
        return real_mask(0.5)(spectrum)

    job = Job(source=path, name=path.name, outputs={"vocals": out / "vocals.wav"})
    separate_file(Separator(FunctionEngine(mask), overlap_s=0), job, OutputFormat("wav"))


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_song_that_is_replaced_is_read_to_its_end(tmp_path: Path, suffix: str):
    before = save(tmp_path / f"song{suffix}")
    separate(tmp_path / f"song{suffix}", replace, tmp_path / "out")
    assert np.abs(load(tmp_path / "out" / "vocals.wav") - before / 2).max() < 1e-5


@pytest.mark.parametrize("change", [overwrite, cut, cut_to_nothing, grow, shorten])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_song_that_is_written_to_is_one_sentence_and_no_stem(
    tmp_path: Path, change: Callable[[Path], None], suffix: str
):
    song = tmp_path / f"song{suffix}"
    save(song)
    with pytest.raises(AudioError) as failed:
        separate(song, change, tmp_path / "out")
    assert str(failed.value).startswith(str(song.name))
    assert not (tmp_path / "out").exists()


def test_an_error_of_the_work_is_not_taken_for_one_of_the_stems(tmp_path: Path):
    save(tmp_path / "song.wav")
    error = OSError(errno.EIO, os.strerror(errno.EIO))

    def fail(_: Path) -> None:
        raise error

    with pytest.raises(OSError, match="Input/output") as failed:
        separate(tmp_path / "song.wav", fail, tmp_path / "out")
    assert failed.value is error
    assert not (tmp_path / "out").exists()


def test_a_picture_that_cannot_be_written_is_a_sentence_and_no_stem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save(tmp_path / "song.wav")
    out, picture = tmp_path / "out", tmp_path / "out" / "song.png"
    outputs = {"vocals": out / "vocals.wav"}
    job = Job(source=tmp_path / "song.wav", name="song.wav", outputs=outputs, picture=picture)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FileError, match=rf"^Cannot write {picture}: No space left on device\.$"):
        separate_file(
            Separator(FunctionEngine(real_mask(0.5)), overlap_s=0), job, OutputFormat("wav")
        )
    assert not out.exists()


def test_a_change_during_a_section_counts(tmp_path: Path):
    song = tmp_path / "song.wav"
    save(song)

    def read() -> Iterator[int]:
        with AudioReader(song, section=Section(1, 4)) as reader:
            for block in reader.blocks():
                overwrite(song)
                yield block.shape[1]

    with pytest.raises(AudioError, match="was changed"):
        list(read())


def while_opened(monkeypatch: pytest.MonkeyPatch, change: Callable[[SourceFile], object]) -> None:
    """Changes each song after its file is opened and before a decoder reads it."""
    from bsmamba2.runtime.audio import reader as audio

    own = audio._open

    def late(file: SourceFile, *rest: Any, **options: Any) -> object:
        change(file)
        return own(file, *rest, **options)

    monkeypatch.setattr(audio, "_open", late)


def test_a_song_that_is_replaced_while_it_is_opened_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    song = tmp_path / "song.wav"
    before = save(song)
    while_opened(monkeypatch, lambda _: replace(song))
    assert np.array_equal(audio_files.read(song), before)


def read_and_call(song: Path, change: Callable[[SourceFile], None]) -> None:
    """Reads a song and calls a function on its open file after each block."""
    with AudioReader(song) as reader:
        for _ in reader.blocks():
            change(reader._file)


@pytest.mark.parametrize("name", ["song.wav", "song.flac", "song.mp3", "song.mka"])
@pytest.mark.parametrize("late", [False, True])
def test_a_disk_that_fails_is_no_damaged_song(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, late: bool
):
    song = tmp_path / name
    if name == "song.mka":
        audio_files.encode(song, "flac", noise(N))
    else:
        audio_files.save(song, noise(N))

    def fail(file: SourceFile) -> None:
        """Lets every later read fail."""
        folder = os.open(tmp_path, os.O_RDONLY)
        os.dup2(folder, file.fileno())
        os.close(folder)

    if not late:
        while_opened(monkeypatch, fail)
    with pytest.raises(AudioError, match=r"song.* cannot be read: Is a directory; try again\.$"):
        read_and_call(song, fail)
