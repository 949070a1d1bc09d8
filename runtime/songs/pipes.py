"""stdin as a file to read, stdout as a file to write."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bsmamba2.errors import AudioError, FileError, OptionError
from bsmamba2.system.atomic import atomic_paths, temporary_folder

PIPE = "-"
"""What the command line calls either of them."""
STDOUT = Path("stdout")
"""In the place of a stem's file. No template gives this name, for it has no suffix."""
_BLOCK = 1 << 20  # bytes


def check_stdout() -> None:
    """Raises OptionError where nobody takes a stem."""
    if sys.stdout is None or sys.stdout.isatty():
        kind = "the terminal" if sys.stdout else "closed"
        raise OptionError(f"stdout is {kind}: send '-o -' into a file or a program.")


@contextlib.contextmanager
def stdin_file() -> Iterator[Path]:
    """A file of all that comes through stdin, gone afterwards.

    Containers are read from their end, too, so that a pipe will not do. Memory stays constant.

    Raises:
        BsmError: stdin cannot be read, or the folder for temporary files cannot be written.
    """
    if sys.stdin is None or sys.stdin.isatty():
        kind = "the terminal" if sys.stdin else "closed"
        raise OptionError(f"stdin is {kind}: pipe a song into 'bsm infer -'.")
    with temporary_folder() as folder:
        path = folder / "stdin"
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file, _BLOCK)
        except OSError as error:
            raise AudioError(
                f"Cannot keep what comes through stdin in {folder.parent}: "
                f"{error.strerror or error}; make room, let TMPDIR name another folder, or name "
                "the song's file."
            ) from error
        yield path


@contextlib.contextmanager
def whole_files(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """As `atomic_paths`; what takes the place of STDOUT, the only path then, is sent there."""
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
        except OSError as error:  # nobody may want all of it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush
            raise FileError(f"Cannot write to stdout: {error.strerror}.") from error
