"""The one way in which an audio file is opened for a decoder."""

from __future__ import annotations

import io
import os
from pathlib import Path

_BUFFER = 1 << 16  # bytes; libsndfile reads 8 kB at a time


class SourceFile(io.BufferedReader):
    """An open file that a decoder reads instead of its path.

    It has no attribute `name`: FFmpeg would take a name with a colon for an address, and both
    libraries would guess the format by its suffix. It keeps its first error instead of raising it,
    because libsndfile cannot pass exceptions on; after an error, the file seems to end.
    """

    def __init__(self, path: Path) -> None:
        """Opens a file; raises OSError if that fails."""
        self._unbuffered = _Unbuffered(path)
        super().__init__(self._unbuffered, _BUFFER)

    @property
    def error(self) -> OSError | None:
        """The first error of the operating system while reading, None so far."""
        return self._unbuffered.error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves as in every file, but stays where it is if a damaged header leads nowhere."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return self.tell()


class _Unbuffered(io.FileIO):
    """A nameless file that ends at its first error."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        del self.name
        self.error: OSError | None = None

    def readinto(self, buffer: bytearray | memoryview) -> int | None:  # type: ignore[override]
        try:
            return super().readinto(buffer)
        except OSError as error:
            self.error = self.error or error
            return 0
