"""Frame headers and tags of MPEG audio files: MP3, and layers I and II."""

from __future__ import annotations

import functools
import itertools
import os
import struct
from collections.abc import Iterator
from io import BufferedReader

_KBPS = {  # MPEG version 1 or not, layer -> kbit/s by the header's index from 1 on
    (True, 1): range(32, 480, 32),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44_100, 48_000, 32_000)
_ENOUGH = 4  # frames in a row that are no accident
_JUNK = 1 << 16  # bytes between two files, or before the first frame, that are looked through
_BLOCK = 1 << 16


def read_at(file: BufferedReader, at: int, size: int) -> bytes:
    """Reads up to `size` bytes at a position."""
    file.seek(at)
    return file.read(size)


def skip_id3(file: BufferedReader, at: int, end: int) -> int:
    """Returns the position after the ID3v2 tags at `at`, if there are any."""
    while (start := read_at(file, at, 10))[:3] == b"ID3" and len(start) == 10:
        size = functools.reduce(lambda bits, byte: bits << 7 | byte & 0x7F, start[6:], 0)
        at = min(end, at + 10 + size + 10 * bool(start[5] & 0x10))  # a footer
    return at


def skip_tags(file: BufferedReader, at: int, end: int) -> int:
    """Returns the position after tags that end a file (ID3v1, APE) and after padding."""
    while at < end:
        start = read_at(file, at, 4096)
        if start.startswith(b"TAG"):
            at += 128
        elif start.startswith(b"APETAGEX"):
            is_header = start[20:24].ljust(4, b"\0")[3] & 0x20
            at += 32 + is_header // 0x20 * struct.unpack_from("<I", start.ljust(16, b"\0"), 12)[0]
        elif start[0] == 0:
            at += len(start) - len(start.lstrip(b"\0"))
        else:
            break
    return min(at, end)


@functools.cache
def frame_size(header: bytes) -> int:
    """Returns the bytes of a frame by the first three of its header; 0 if they are not one's."""
    if len(header) < 3 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)  # 3: MPEG 1, 2: 2, 0: 2.5
    index, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or rate == 3 or not 0 < index < 15:
        return 0
    bits = 1000 * _KBPS[version == 3, layer][index - 1]
    hertz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    if layer == 1:
        return 4 * (12 * bits // hertz + padding)
    return (72 if layer == 3 and version != 3 else 144) * bits // hertz + padding


def frames(file: BufferedReader, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yields position and header (three bytes) of each of the frames that follow without a gap."""
    block, start, first = b"", at, b""
    while at + 4 <= end:
        place = at - start
        if place + 4 > len(block):
            start, place = at, 0
            block = read_at(file, at, min(_BLOCK, end - at))
        header = block[place : place + 3]
        first = first or header
        size = frame_size(header)
        # One stream keeps version, layer and sample rate.
        if not size or (header[1] ^ first[1]) & 0xFE or (header[2] ^ first[2]) & 0x0C:
            return
        yield at, header
        at += size


def first_frame(file: BufferedReader, at: int, end: int) -> int | None:
    """Returns the position of the first frame from `at` on, soon after it; None without one."""
    junk = read_at(file, at, min(_JUNK, max(0, end - at)))
    place = junk.find(b"\xff")
    while place >= 0:
        if frame_size(junk[place : place + 3]):
            run = [start for start, _ in itertools.islice(frames(file, at + place, end), _ENOUGH)]
            if stated := [start for start in run if stated_length(file, start)]:
                return stated[0]
            if len(run) == _ENOUGH:
                return run[0]
        place = junk.find(b"\xff", place + 1)
    return None


def stated_length(file: BufferedReader, at: int) -> tuple[int | None, int | None] | None:
    """Returns the frames and bytes that the frame at `at` states; None if it is an ordinary one.

    Encoders put them into a silent first frame (a Xing, Info or VBRI header), which the bytes
    include; into a pipe, they write 0.
    """
    frame = read_at(file, at, 64)
    if frame[36:40] == b"VBRI" and len(frame) >= 54:
        size, count = struct.unpack_from(">II", frame, 46)
        return count or None, size or None
    place = _find_xing(frame)
    if place < 0:
        return None
    flags, *numbers = struct.unpack_from(">III", frame.ljust(64, b"\0"), place + 4)
    count = numbers.pop(0) if flags & 1 else 0
    return count or None, (flags & 2 and numbers[0]) or None


def _find_xing(frame: bytes) -> int:
    """Returns the place of a Xing or Info header in a frame; -1 if it has none."""
    return max(frame.find(b"Xing", 0, 46), frame.find(b"Info", 0, 46))


def begins_as_mpeg(file: BufferedReader, start: int = 0) -> bool:
    """Whether libsndfile may take a file for MPEG audio: a frame's header is where its tags end.

    Frames that begin soon after a tag count, too, as a damaged tag may seem longer than it is.
    """
    end = file.seek(0, os.SEEK_END)
    at = skip_id3(file, start, end)
    return frame_size(read_at(file, at, 3)) > 0 or (
        at > start and first_frame(file, at, end) is not None
    )


def is_mpeg(file: BufferedReader) -> bool:
    """Whether a file begins with frames, after its tags."""
    return begins_as_mpeg(file) and _bounds(file)[0] is not None


def stated_samples(file: BufferedReader) -> int | None:
    """Returns the samples per channel that an MPEG file states; None if it does not.

    Those that the encoder put in front and behind are left out, if it says how many.
    """
    before = file.tell()  # of libsndfile, which may be reading
    first, _ = _bounds(file)
    count, _ = (first is not None and stated_length(file, first)) or (None, None)
    frame = b"" if first is None else read_at(file, first, 256)
    file.seek(before)
    if count is None:
        return None
    samples = count * (1152 if frame[1] & 8 or frame[1] & 6 == 4 else 576)  # MPEG 1, or layer II
    place = _find_xing(frame)
    fields = {1: 4, 2: 4, 4: 100, 8: 4}  # flag -> bytes of the count, size, places and quality
    tag = place + 8 + sum(size for flag, size in fields.items() if frame[place + 7] & flag)
    if place < 0 or frame[tag : tag + 4] not in (b"LAME", b"Lavf", b"Lavc"):
        return samples
    padding = int.from_bytes(frame[tag + 21 : tag + 24], "big")
    return max(0, samples - (padding >> 12) - (padding & 0xFFF))


def has_constant_bit_rate(file: BufferedReader) -> bool:
    """Whether all frames have one bit rate, from which libsndfile then guesses the right length."""
    first, end = _bounds(file)
    if first is None:
        return False
    rates, after = set(), first
    for at, header in frames(file, first, end):
        rates.add(header[2] >> 4)
        after = at + frame_size(header)
    return len(rates) == 1 and skip_tags(file, after, end) >= end


def _bounds(file: BufferedReader) -> tuple[int | None, int]:
    """Returns the positions of the first frame and of the file's end."""
    end = file.seek(0, os.SEEK_END)
    return first_frame(file, skip_id3(file, 0, end), end), end


def next_mp3(file: BufferedReader, at: int, end: int) -> int | None:
    """Returns where another MPEG file begins after the one whose frames begin at `at`."""
    first = first_frame(file, at, end)
    if first is None:
        return None
    count, size = stated_length(file, first) or (None, None)
    if size:
        at = first + size
    else:
        for at, header in itertools.islice(frames(file, first, end), count and count + 1):
            at += frame_size(header)
    at = skip_tags(file, at, end)
    begin = first_frame(file, at, end)
    tag = read_at(file, at, min(_JUNK, max(0, end - at))).find(b"ID3")
    if tag >= 0 and (begin is None or at + tag < begin):
        tagged = first_frame(file, skip_id3(file, at + tag, end), end)
        return begin if tagged is None else at + tag
    return begin
