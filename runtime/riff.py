"""What a WAV header promises against what its file holds.

libsndfile reads a truncated WAV without a word, and nothing at all from one whose length is
written as 0, which is what a program has to write that sends its samples down a pipe.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import AudioError

_UNKNOWN = 0xFFFFFFFF


@dataclass(frozen=True)
class WavData:
    """The chunk of samples in a WAV file, sizes in bytes."""

    offset: int
    """Of the first sample in the file."""
    promised: int
    """Length by the header."""
    available: int
    """From the first sample to the end of the file."""
    frame: int
    """Length of one sample of all channels."""
    file_promised: int
    """Length of the whole file by the header."""

    @property
    def unknown_length(self) -> bool:
        """Whether the header was written before the length was known.

        ffmpeg writes 2^32 - 1 into a pipe, sox and arecord something just below 2^31, others 0
        or what the empty file would have.
        """
        if self.promised == 0:
            return self.available > 0 and self.file_promised != self.offset + self.available
        return self.promised >= 0xFFFFF000 or 0x7FFFF000 <= self.promised <= 0x80000000

    @property
    def truncated(self) -> bool:
        """Whether at least one promised sample is missing."""
        return not self.unknown_length and self.promised >= self.available + self.frame


def find_wav_data(path: Path) -> WavData | None:
    """Finds the samples of a RIFF, RIFX or RF64 file; None if there is no such thing in it."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        magic, size, kind = file.read(4), file.read(4), file.read(4)
        if magic not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or kind != b"WAVE":
            return None
        order = ">" if magic == b"RIFX" else "<"
        file_size = struct.unpack(order + "I", size)[0] + 8
        frame, long_sizes = 1, None
        while len(header := file.read(8)) == 8:
            name, size_of = header[:4], struct.unpack(order + "I", header[4:])[0]
            if name == b"data":
                if long_sizes and size_of == _UNKNOWN:
                    file_size, size_of = long_sizes[0] + 8, long_sizes[1]
                start = file.tell()
                return WavData(start, size_of, end - start, max(1, frame), file_size)
            body = file.read(min(size_of, 64))
            if name == b"fmt " and len(body) >= 14:
                frame = struct.unpack_from(order + "H", body, 12)[0]
            if name == b"ds64" and len(body) >= 16:
                long_sizes = struct.unpack_from("<QQ", body)
            file.seek(size_of + size_of % 2 - len(body), os.SEEK_CUR)
    return None


def open_wav(path: Path) -> io.FileIO | None:
    """A file with its length put right, or None where the file itself will do.

    Raises:
        AudioError: The file is truncated.
    """
    data = find_wav_data(path)
    if data is None:
        return None
    if data.truncated:
        raise AudioError(
            f"{path} is truncated: its header promises {data.promised} bytes of samples, "
            f"the file holds {data.available}; copy or download it again."
        )
    if data.promised == 0 and data.unknown_length:
        return _Overlaid(path, data.offset - 4, struct.pack("<I", _UNKNOWN))
    return None


class _Overlaid(io.FileIO):
    """A file of which some bytes read differently."""

    def __init__(self, path: Path, offset: int, values: bytes) -> None:
        super().__init__(path, "rb")
        self._overlay = dict(enumerate(values, offset))

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As in FileIO, with the overlay's bytes."""
        start = self.tell()
        count = super().readinto(buffer) or 0
        for offset, value in self._overlay.items():
            if start <= offset < start + count:
                buffer[offset - start : offset - start + 1] = bytes([value])
        return count
