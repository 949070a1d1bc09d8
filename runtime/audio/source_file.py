"""The one way in which an audio file is opened for a decoder."""

from __future__ import annotations

import io
import os
from pathlib import Path

_BUFFER = 1 << 16  # bytes; libsndfile reads 8 kB at a time


class _Source(io.BufferedReader):
    """A file for a decoder, which cannot pass exceptions on."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves as in every file, but stays where it is if a damaged header leads nowhere."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return self.tell()


class SourceFile(_Source):
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


class Part(_Source):
    """The bytes of an open file from `start` to `stop`; closing it leaves that file open."""

    def __init__(self, file: io.BufferedReader, start: int, stop: int) -> None:
        """Shows a part of a file."""
        super().__init__(_UnbufferedPart(file, start, stop), _BUFFER)


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


class _UnbufferedPart(io.RawIOBase):
    def __init__(self, file: io.BufferedReader, start: int, stop: int) -> None:
        self._file, self._start, self._size, self._at = file, start, stop - start, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("a negative position")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._start + self._at)
        data = self._file.read(min(len(buffer), max(0, self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
