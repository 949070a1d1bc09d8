"""Finds where files were joined: chained Ogg streams, MP3s or other files after a `cat`.

Decoders stop at the end of the first file, or take the header of the second for samples. What may
follow the samples of a single file is no other file: tags, padding, chunks with titles and cues,
fragments of an MP4.

Formats of which FFmpeg reads the second file, too, are not looked at: ADTS, AC-3, AVI, transport
streams, and Matroska of unknown length.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from functools import partial
from io import BufferedReader
from typing import Literal

from bsmamba2.runtime.audio.flac import skip_frames
from bsmamba2.runtime.audio.mp3 import begins_as_mpeg, next_mp3, read_at, skip_id3
from bsmamba2.runtime.audio.riff import MOST_CHUNKS, find_wav_data
from bsmamba2.runtime.audio.source_file import Part

_BLOCK = 1 << 16  # bytes
_KEPT = 15  # of these, as a header may lie across two blocks

Walk = Callable[[BufferedReader, int, int], int | None]
"""Takes a file, the position of a header in it, and its end; returns that of the next header."""


def find_starts(file: BufferedReader) -> list[int]:
    """Returns where the files joined in one begin, their ID3v2 tags included; [0] if it is one."""
    before, end = file.tell(), file.seek(0, os.SEEK_END)
    starts: list[int] = []
    at: int | None = 0
    while at is not None:
        starts.append(at)
        header = skip_id3(file, at, end)
        start = read_at(file, header, 16)
        walk = next((walk for magic, walk in _WALKS.items() if magic.match(start)), None)
        if walk is None and begins_as_mpeg(file, at):
            walk = next_mp3
        at = walk(file, header, end) if walk else None
    file.seek(before)
    return starts


def _next_ogg(file: BufferedReader, at: int, end: int) -> int | None:
    """Walks over the pages: one that begins a stream, after any other page, begins a chain.

    Where no page follows, the last one may be cut off; the next one is looked for in it.
    """
    begun, last = False, at
    while len(page := read_at(file, at, 27 + 255)) > 27 and page[:4] == b"OggS":
        begins = page[5] & 2
        if begins and begun:
            return at
        begun, last = begun or not begins, at
        at += 27 + page[26] + sum(page[27 : 27 + page[26]])
    return _search(file, last + 27, _OGG_BEGIN) if begun else None


def _next_flac(file: BufferedReader, at: int, end: int) -> int | None:
    """Walks over the metadata, then looks for another header among the frames."""
    begin, at = at, at + 4
    while len(block := read_at(file, at, 4)) == 4:
        at += 4 + int.from_bytes(block[1:], "big")
        if block[0] & 0x80:  # the last one
            break
    return _search(file, skip_frames(file, begin, at, end), _FLAC)


def _search(file: BufferedReader, at: int, magic: re.Pattern[bytes]) -> int | None:
    """Returns where a header is from `at` on."""
    while len(data := read_at(file, at, _BLOCK)) > _KEPT:
        if found := magic.search(data):
            return at + found.start()
        at += len(data) - _KEPT
    return None


def _next_header(
    file: BufferedReader, at: int, end: int, *, magic: re.Pattern[bytes]
) -> int | None:
    """Looks for another header in all that follows."""
    return _search(file, at + 1, magic)


def _next_wav(file: BufferedReader, at: int, end: int) -> int | None:
    """Walks over the chunks after the samples; looks for a header if their length is unknown."""
    data = find_wav_data(Part(file, at, end))
    if data is None:
        return None
    short = data.available < 1 << 32  # otherwise a search takes too long
    if data.unknown_length and short:
        return _search(file, at + data.offset, _RIFF)
    order: Literal["little", "big"] = "big" if data.big_endian else "little"
    after = at + data.offset + data.promised
    found, reached = _walk_chunks(file, at, after, order, _WAV)
    if found is None and abs(reached - end) > 1 and short:
        return _search(file, at + 1, _RIFF)  # samples that were cut off end in the next file
    return found


def _next_aiff(file: BufferedReader, at: int, end: int) -> int | None:
    """Walks over the chunks."""
    found, reached = _walk_chunks(file, at, at + 12, "big", _AIFF)
    return _search(file, at + 1, _AIFF) if found is None and abs(reached - end) > 1 else found


def _walk_chunks(
    file: BufferedReader,
    begin: int,
    at: int,
    order: Literal["little", "big"],
    magic: re.Pattern[bytes],
) -> tuple[int | None, int]:
    """Walks over chunks from the one at `at` on; another file begins where one would.

    A chunk of odd length is followed by a zero, which some programs leave out at the end.

    Returns:
        Where another file begins, None if none does; and where the walk ended.
    """
    for _ in range(MOST_CHUNKS):
        padding = (at - begin) % 2
        chunk = read_at(file, at, 13)
        for place in range(padding + 1):
            if magic.match(chunk, place):
                return at + place, at
        name, size = chunk[padding : padding + 4], chunk[padding + 4 : padding + 8]
        if not any(name):
            break
        at += padding + 8 + int.from_bytes(size, order)
    return None, at


def _next_mp4(file: BufferedReader, at: int, end: int) -> int | None:
    """Walks over the atoms: another file has an "ftyp" and a "moov", fragments have neither."""
    begin, moovs = None, 0
    while len(atom := read_at(file, at, 16)) >= 8:
        size, name = int.from_bytes(atom[:4], "big"), atom[4:8]
        if name == b"ftyp" and moovs:
            begin = at
        if name == b"moov":
            if begin is not None:
                return begin
            moovs += 1
        if size == 1:
            size = int.from_bytes(atom[8:], "big")
        if size < 8 or size >> 62:  # 0: up to the end
            return None
        at += size
    return None


def _next_matroska(file: BufferedReader, at: int, end: int) -> int | None:
    """Walks over the elements of the highest level, of which live recordings state no size."""
    begin = at
    while len(element := read_at(file, at, 16)) == 16:
        if at > begin and _EBML.match(element):
            return at
        place = 9 - element[0].bit_length()  # leading zeros tell the length of a number
        length = 9 - element[place].bit_length()
        size = int.from_bytes(element[place : place + length], "big") & (1 << 7 * length) - 1
        if place > 4 or length > 8 or size == (1 << 7 * length) - 1:
            return None
        at += place + length + size
    return None


def _next_wavpack(file: BufferedReader, at: int, end: int) -> int | None:
    """Walks over the blocks: a second one with sample 0 begins a file."""
    begun = False
    while len(block := read_at(file, at, 28)) == 28 and block[:4] == b"wvpk":
        size, index, samples, flags = struct.unpack("<4xI8xIII", block)
        is_first = samples and flags & 0x800 and not index and not block[10]
        if is_first and begun:
            return at
        begun = begun or is_first
        at += 8 + size
    return _search(file, at, _WAVPACK)


_OGG_BEGIN = re.compile(rb"OggS\x00\x02")
_FLAC = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
_WAV = re.compile(rb"(?:RIFF|RF64|BW64|RIFX)....WAVE", re.DOTALL)
_RIFF = re.compile(rb"RIFF....WAVE", re.DOTALL)
_AIFF = re.compile(rb"FORM....AIF[FC]", re.DOTALL)
_EBML = re.compile(rb"\x1a\x45\xdf\xa3")
_WAVPACK = re.compile(rb"wvpk....[\x02-\x10]\x04", re.DOTALL)
_LONG = [
    re.compile(header, re.DOTALL)
    for header in (
        rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",  # ASF
        rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00",  # W64
        rb"caff\x00\x01\x00\x00desc",
        rb"TTA1[\x01\x03]\x00[\x01-\x08]\x00[\x08-\x20]\x00",
        rb"MAC [\x8c-\xff]\x0f\x00\x00\x34\x00\x00\x00\x18\x00\x00\x00",  # Monkey's Audio
        rb"FLV\x01[\x01\x04\x05]\x00\x00\x00\x09",
        rb"\.snd\x00\x00.{6}\x00\x00\x00[\x01-\x1b]",  # AU
    )
]
"""Headers too long to be anywhere by accident."""
_WALKS: dict[re.Pattern[bytes], Walk] = {
    re.compile(rb"OggS"): _next_ogg,
    re.compile(rb"fLaC"): _next_flac,
    _WAV: _next_wav,
    _AIFF: _next_aiff,
    re.compile(rb"....ftyp", re.DOTALL): _next_mp4,
    _EBML: _next_matroska,
    re.compile(rb"wvpk"): _next_wavpack,
    **{magic: partial(_next_header, magic=magic) for magic in _LONG},
}
"""How a file begins -> how its end is found; every other file may be an MP3."""
