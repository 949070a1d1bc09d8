"""Finds the songs to separate: named files, audio files in folders, and stdin."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import BsmError
from bsmamba2.runtime.audio.reader import SUFFIXES
from bsmamba2.runtime.songs.pipes import PIPE, stdin_file
from bsmamba2.system.files import existing_file

_HERE = Path()


@dataclass(frozen=True)
class Source:
    """A song to separate."""

    path: Path
    """The file to read."""
    name: str
    """Name in reports: the file as it was given, or 'stdin'."""
    folder: Path = _HERE
    """Folder of the file, relative to the folder that was given."""


@dataclass(frozen=True)
class Failure:
    """An input that cannot be separated."""

    source: str
    """The input as it was given."""
    error: str
    """What is wrong, in one sentence."""


@contextlib.contextmanager
def found_sources(
    names: Sequence[str], *, recursive: bool = False, leave_out: Path | None = None
) -> Iterator[tuple[list[Source], list[Failure]]]:
    """Finds named files, and the audio files in named folders, sorted; each file once.

    A context manager: stdin is read at once, into a file that exists until the block ends.

    Args:
        names: Files, folders, and '-' for stdin.
        recursive: Searches subfolders, too, except for hidden and linked ones.
        leave_out: A subfolder that is not searched: the folder of the results, so that a second
            run does not separate stems.

    Yields:
        The songs, and a failure for each name without one.

    Raises:
        BsmError: stdin cannot be read or stored.
    """
    with stdin_file() if PIPE in names else contextlib.nullcontext() as stdin:
        yield _find(names, recursive, leave_out, stdin)


def _find(
    names: Sequence[str], recursive: bool, leave_out: Path | None, stdin: Path | None
) -> tuple[list[Source], list[Failure]]:
    found: dict[str, Source] = {}
    failures: list[Failure] = []
    for name in names:
        try:
            sources = list(_sources(name, recursive, leave_out, stdin))
        except OSError as error:
            where = error.filename or name
            mend = "check its permissions"
            failures.append(Failure(name, f"{where} cannot be listed: {error.strerror}; {mend}."))
            continue
        except BsmError as error:
            failures.append(Failure(name, str(error)))
            continue
        if not sources:
            mend = "name the files themselves" if recursive else "name files, or add --recursive"
            failures.append(Failure(name, f"{name} is a folder without audio files: {mend}."))
        for source in sources:
            found.setdefault(identity(source.path), source)
    return list(found.values()), failures


def _sources(
    name: str, recursive: bool, leave_out: Path | None, stdin: Path | None
) -> Iterator[Source]:
    """Yields the songs that a name stands for."""
    if name == PIPE and stdin:
        yield Source(stdin, "stdin")
        return
    top = Path(name)
    if not top.is_dir():
        yield Source(existing_file(top, name, what="file or folder"), str(top))
        return
    for folder in _folders(top, leave_out) if recursive else [top]:
        for path in sorted(folder.iterdir()):
            if _has_audio_name(path) and (path.is_file() or not path.exists()):  # a broken link
                yield Source(path, str(path), folder.relative_to(top))


def _folders(top: Path, leave_out: Path | None) -> Iterator[Path]:
    """Yields a folder and all searched folders below it."""
    yield top
    for path in sorted(top.iterdir()):
        hidden, linked = path.name.startswith("."), path.is_symlink()
        left_out = leave_out is not None and identity(path) == identity(leave_out)
        if path.is_dir() and not (hidden or linked or left_out):
            yield from _folders(path, leave_out)


def is_audio_file(path: Path) -> bool:
    """Whether the suffix is that of an audio format; hidden files (._song.wav) do not count."""
    return _has_audio_name(path) and path.is_file()


def _has_audio_name(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def identity(path: Path) -> str:
    """Returns a string that is equal for two paths to the same file."""
    return os.path.normcase(os.path.realpath(path))
