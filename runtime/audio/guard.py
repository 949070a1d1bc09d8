"""Notices that a song's file is written to, or another put in its place, while it is read."""

from __future__ import annotations

import os
from pathlib import Path

from bsmamba2.errors import AudioError


class Unchanged:
    """Holds a file open, to compare it with what it was.

    A file that is replaced after it was opened goes on being read, as it was. One that is written
    to would give a mixture of old and new samples.
    """

    def __init__(self, path: Path, name: str) -> None:
        """Opens a file, called `name` in messages; raises AudioError if that fails."""
        self._path, self._name = path, name
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise AudioError(
                f"{name} cannot be read: {error.strerror}; name another file."
            ) from error
        self._before = os.fstat(self._file.fileno())

    def check_opened(self) -> None:
        """Raises AudioError if somebody who opened the path since then may have got another."""
        try:
            same = os.path.samestat(self._before, self._path.stat())
        except OSError:
            same = False
        if not same:
            raise AudioError(f"{self._name} was replaced while it was opened: separate it again.")
        self.check()

    def check(self) -> None:
        """Raises AudioError if the file was written to."""
        now = os.fstat(self._file.fileno())
        before = self._before
        if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise AudioError(
                f"{self._name} was changed while it was read: wait until it is complete, and "
                "separate it again."
            )

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
