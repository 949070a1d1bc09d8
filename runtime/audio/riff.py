"""Compares the length in a WAV header with the file, and corrects it.

libsndfile reads a truncated WAV without an error. It reads nothing if the header states a length
of 0, as written by programs that send samples down a pipe, and only the remainder modulo 4 GB of
longer files, whose length does not fit into the header. Files of the last two kinds are passed to
libsndfile with an RF64 header, which has 64-bit lengths.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass

from bsmamba2.errors import AudioError

MOST_CHUNKS = 10_000
"""Chunks after which a file is taken for damaged."""
_UNKNOWN = 0xFFFFFFFF
_MORE = 1 << 20  # bytes; more than this after the promised samples are samples too, not tags


@dataclass(frozen=True)
class WavData:
    """The data chunk of a WAV file; sizes in bytes."""

    offset: int
    """Position of the first sample in the file."""
    promised: int
    """Length of the samples according to the header."""
    available: int
    """Length from the first sample to the end of the file."""
    frame: int
    """Length of one sample of all channels."""
    file_promised: int
    """Length of the whole file according to the header."""
    format: bytes
    """The body of the "fmt " chunk, up to 64 bytes."""
    big_endian: bool = False
    """Whether the file is RIFX, which has no 64-bit form."""

    @property
    def unknown_length(self) -> bool:
        """Whether the header was written before the length was known.

        Into a pipe, ffmpeg writes 2^32 - 1, sox and arecord something just below 2^31, others 0
        or the sizes of an empty file.
        """
        if self.promised == 0:
            return self.available > 0 and self.file_promised != self.offset + self.available
        return self.promised >= 0xFFFFF000 or 0x7FFFF000 <= self.promised <= 0x80000000

    @property
    def length(self) -> int:
        """Length of the samples according to the header, or to the file if that is unknown."""
        if self.unknown_length and (not self.promised or self.available - self.promised > _MORE):
            return self.available
        wraps = max(0, self.available - self.promised) >> 32  # of the header's 32 bits
        return min(self.promised + (wraps << 32), self.available)

    @property
    def truncated(self) -> bool:
        """Whether at least one promised sample is missing."""
        return not self.unknown_length and self.promised >= self.available + self.frame


def find_wav_data(file: io.BufferedReader) -> WavData | None:
    """Finds the data chunk of a RIFF, RIFX or RF64 file; None if the file has none."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    magic, size, kind = file.read(4), file.read(4), file.read(4)
    if magic not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or kind != b"WAVE":
        return None
    order = ">" if magic == b"RIFX" else "<"
    file_size = struct.unpack(order + "I", size)[0] + 8
    frame, long_sizes, format = 1, None, b""
    for _ in range(MOST_CHUNKS):
        if len(header := file.read(8)) < 8:
            break
        name, size_of = header[:4], struct.unpack(order + "I", header[4:])[0]
        if name == b"data":
            if long_sizes and size_of == _UNKNOWN:
                file_size, size_of = long_sizes[0] + 8, long_sizes[1]
            start = file.tell()
            return WavData(
                offset=start,
                promised=size_of,
                available=end - start,
                frame=max(1, frame),
                file_promised=file_size,
                format=format,
                big_endian=order == ">",
            )
        body = file.read(min(size_of, 64))
        if name == b"fmt " and len(body) >= 14:
            frame, format = struct.unpack_from(order + "H", body, 12)[0], body
        if name == b"ds64" and len(body) >= 16:
            long_sizes = struct.unpack_from("<QQ", body)
        file.seek(size_of + size_of % 2 - len(body), os.SEEK_CUR)
    return None


def open_wav(file: io.BufferedReader, name: str) -> io.BufferedReader | None:
    """Shows an open WAV file with its length corrected; None if no correction is needed.

    Raises:
        AudioError: The file, called `name`, is truncated, or its length cannot be corrected.
    """
    data = find_wav_data(file)
    if data is None:
        return None
    if data.truncated:
        raise AudioError(
            f"{name} is truncated: its header promises {data.promised} bytes of samples, "
            f"the file holds {data.available}; copy or download it again."
        )
    if data.length == min(data.promised, data.available):
        return None
    if data.big_endian:
        raise AudioError(f"{name} does not state its length (RIFX): convert it to FLAC first.")
    return io.BufferedReader(_Reheaded(file, _rf64_header(data), data.offset))


def _rf64_header(data: WavData) -> bytes:
    """Returns an RF64 header for the samples."""
    described = b"fmt " + struct.pack("<I", len(data.format)) + data.format
    whole = 4 + 8 + 28 + len(described) + 8 + data.length
    sizes = struct.pack("<IQQQI", 28, whole, data.length, data.length // data.frame, 0)
    start = b"RF64" + struct.pack("<I", _UNKNOWN) + b"WAVE" + b"ds64" + sizes
    return start + described + b"data" + struct.pack("<I", _UNKNOWN)


class _Reheaded(io.RawIOBase):
    """An open file with its header replaced; positions count from the new header's beginning."""

    def __init__(self, file: io.BufferedReader, header: bytes, offset: int) -> None:
        """Replaces the first `offset` bytes by `header`."""
        self._file, self._header = file, header
        self._moved, self._at = offset - len(header), 0

    def readable(self) -> bool:
        """See RawIOBase."""
        return True

    def seekable(self) -> bool:
        """See RawIOBase."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See RawIOBase."""
        if whence == os.SEEK_END:
            offset += self._file.seek(0, os.SEEK_END) - self._moved
        elif whence == os.SEEK_CUR:
            offset += self._at
        self._at = offset
        return offset

    def tell(self) -> int:
        """See RawIOBase."""
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """See RawIOBase."""
        start = self._header[self._at : self._at + len(buffer)]
        buffer[: len(start)] = start
        self._at += len(start)
        count = 0
        if rest := memoryview(buffer)[len(start) :]:
            self._file.seek(self._at + self._moved)
            count = self._file.readinto(rest)
        self._at += count
        return len(start) + count
