"""Reads a song from stdin and writes a stem to stdout, through temporary files."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bsmamba2.errors import AudioError, FileError, OptionError
from bsmamba2.system.atomic import atomic_paths, check_paths, temporary_folder

PIPE = "-"
"""Name of stdin and stdout on the command line."""
STDOUT = Path("stdout")
"""Stands for stdout in place of a stem's file; no template yields a name without a suffix."""
_BLOCK = 1 << 20  # bytes


def check_stdout() -> None:
    """Raises OptionError if stdout is closed or a terminal."""
    if sys.stdout is None or sys.stdout.isatty():
        kind = "a terminal" if sys.stdout else "closed"
        raise OptionError(f"stdout is {kind}: redirect '-o -' to a file or a program.")


@contextlib.contextmanager
def stdin_file() -> Iterator[Path]:
    """Copies stdin to a temporary file, in constant memory; deletes it when the block ends.

    A pipe itself will not do, as decoders must seek.

    Raises:
        BsmError: stdin cannot be read, or the folder for temporary files cannot be written.
    """
    if sys.stdin is None or sys.stdin.isatty():
        kind = "a terminal" if sys.stdin else "closed"
        raise OptionError(f"stdin is {kind}: pipe a song into 'bsm infer -'.")
    with temporary_folder() as folder:
        path = folder / "stdin"
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file, _BLOCK)
        except OSError as error:
            raise AudioError(
                f"Cannot store stdin in {folder.parent}: {error.strerror or error}; make room, "
                "set TMPDIR to another folder, or name the song's file."
            ) from error
        yield path


def check_files(paths: Sequence[Path]) -> None:
    """Raises the FileError with which `whole_files` would begin, without writing anything."""
    check_paths([path for path in paths if path != STDOUT])


@contextlib.contextmanager
def whole_files(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Like `atomic_paths`; if the only path is STDOUT, the file is sent to stdout at the end."""
    if STDOUT not in paths:
        with atomic_paths(paths) as partials:
            yield partials
        return
    with temporary_folder() as folder:
        path = folder / STDOUT
        yield [path]
        try:
            with path.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer, _BLOCK)
            sys.stdout.buffer.flush()
        except OSError as error:  # such as a reader that closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush
            raise FileError(
                f"Cannot write to stdout: {error.strerror}; redirect it to a file."
            ) from error
