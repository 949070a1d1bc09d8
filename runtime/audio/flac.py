"""Frame headers of FLAC files (RFC 9639, sections 8.2 and 9.1)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from io import BufferedReader

from bsmamba2.runtime.audio.mp3 import read_at

_PLACES = 16
_WINDOW = 1 << 16  # bytes; most frames are shorter
_BLOCK_SIZES = {1: 192, 2: 576, 3: 1152, 4: 2304, 5: 4608} | {n: 1 << n for n in range(8, 16)}
_EXTRA_BYTES = {6: 1, 7: 2}  # code of the block size -> bytes of the number that follows
_RATE_BYTES = {12: 1, 13: 2, 14: 2}  # the same for the sample rate


def skip_frames(file: BufferedReader, at: int, first: int, end: int) -> int:
    """Returns the position from which another file may follow the FLAC file at `at`.

    It is near the end if a few frames prove that the file reaches that far: their positions in the
    song rise from place to place, the last frame ends with the last sample that the header states,
    and there are no more bytes than such a song can have. Otherwise it is `first`. This saves
    reading most of a long file.

    Args:
        file: The open file.
        at: Position of the header.
        first: Position of the first frame.
        end: Position of the end.
    """
    info = read_at(file, at + 8, 18)  # the body of STREAMINFO
    usual = int.from_bytes(info[2:4], "big")
    form = int.from_bytes(info[10:18], "big")
    channels, bits, total = (form >> 41 & 7) + 1, (form >> 36 & 31) + 1, form & (1 << 36) - 1
    longest = 1.1 * total * channels * bits / 8  # bytes
    if not _PLACES * _WINDOW < end - first < longest:
        return first
    sync = read_at(file, first, 4)
    places = [first + (end - first) * number // _PLACES for number in range(_PLACES)]
    places.append(end - _WINDOW)
    found = [[*_frames(read_at(file, place, _WINDOW), sync, usual)] for place in places]
    if not all(found):
        return first
    rising = all(one[0] <= other[0] for one, other in itertools.pairwise(found))
    return places[-2] if rising and sum(found[-1][-1]) == total else first


def _frames(data: bytes, sync: bytes, usual: int) -> Iterator[tuple[int, int]]:
    """Yields first sample and length of each frame whose header is in the data.

    Args:
        data: A part of the file.
        sync: The beginning of its first frame, some bits of which are those of all frames.
        usual: The samples of a frame, where all but the last have the same number.
    """
    place = data.find(sync[:2])
    while place >= 0:
        header = data[place : place + 16]
        if len(header) == 16 and not ((header[2] ^ sync[2]) | (header[3] ^ sync[3])) & 0x0F:
            yield from _parsed(header, usual)
        place = data.find(sync[:2], place + 1)


def _parsed(header: bytes, usual: int) -> Iterator[tuple[int, int]]:
    """Yields first sample and length of a frame, or nothing if these bytes are no header."""
    ones = 8 - (header[4] ^ 0xFF).bit_length()
    at = 4 + max(1, ones)  # the number is written as in UTF-8
    number = header[4] & 0x7F >> ones
    for byte in header[5:at]:
        number = number << 6 | byte & 0x3F
    code, rate = header[2] >> 4, header[2] & 0x0F
    length = _BLOCK_SIZES.get(code, 0)
    if extra := _EXTRA_BYTES.get(code, 0):
        length = int.from_bytes(header[at : at + extra], "big") + 1
    at += extra + _RATE_BYTES.get(rate, 0)
    if length and at < len(header) and _crc8(header[:at]) == header[at]:
        yield (number if header[1] & 1 else number * usual), length


def _crc8(data: bytes) -> int:
    """The checksum of a frame's header, by the polynomial x^8 + x^2 + x + 1."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc << 1 ^ 0x107 * (crc >> 7)
    return crc
