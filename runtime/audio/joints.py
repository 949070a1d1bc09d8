"""Finds where files were joined: chained Ogg streams, MP3s or other files after a `cat`.

Decoders stop at the end of the first file, or take the header of the second for samples. What may
follow the samples of a single file is no other file: tags, padding, chunks with titles and cues,
fragments of an MP4.

Formats whose frames simply go on (ADTS, AC-3, transport streams) are not looked at: FFmpeg reads
them to the end.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from typing import Literal

from bsmamba2.runtime.audio.flac import is_one_flac
from bsmamba2.runtime.audio.mp3 import next_mp3, read_at, skip_id3, skip_tags
from bsmamba2.runtime.audio.riff import find_wav_data
from bsmamba2.runtime.audio.source_file import Part

_BLOCK = 1 << 20  # bytes
_KEPT = 15  # of these, as a header may lie across two blocks
_MOST_CHUNKS = 10_000

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
        walks = (walk for magic, walk in _WALKS.items() if magic.match(start))
        at = next(walks, next_mp3)(file, header, end)
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
    if end - at > _BLOCK and is_one_flac(file, begin, at, end):
        return None
    return _search(file, at, _FLAC)


def _search(file: BufferedReader, at: int, magic: re.Pattern[bytes]) -> int | None:
    """Returns where a header is from `at` on."""
    while len(data := read_at(file, at, _BLOCK)) > _KEPT:
        if found := magic.search(data):
            return at + found.start()
        at += len(data) - _KEPT
    return None


@dataclass(frozen=True)
class _Chunks:
    """Walks over chunks, each with a name and a size; another file begins where one would."""

    magic: re.Pattern[bytes]
    """How such a file begins."""
    size: slice
    """Place of the size in the header of a chunk."""
    header: int
    """Length of that header in bytes, if the size does not include it."""
    first: int
    """Length of the file's header, before the first chunk."""
    order: Literal["little", "big"] = "little"
    multiple: int = 1
    """Chunks begin at multiples of this."""

    def __call__(self, file: BufferedReader, at: int, end: int) -> int | None:
        """See Walk."""
        return self.walk(file, at, at + self.first)

    def walk(self, file: BufferedReader, begin: int, at: int) -> int | None:
        """Walks over the chunks of the file at `begin`, from the one at `at` on."""
        for _ in range(_MOST_CHUNKS):
            chunk = read_at(file, at, 24)
            if at > begin and self.magic.match(chunk):
                return at
            size = self.header + int.from_bytes(chunk[self.size], self.order)
            if size < self.size.stop or size >> 62 or not any(chunk[:4]):
                break
            at += size + -(at + size - begin) % self.multiple
        return None


def _next_wav(file: BufferedReader, at: int, end: int) -> int | None:
    """Walks over the chunks after the samples; looks for a header if their length is unknown."""
    data = find_wav_data(Part(file, at, end))
    if data is None:
        return None
    if data.unknown_length and data.available < 1 << 32:  # otherwise it takes too long
        return _search(file, at + data.offset, _PIPED_WAV)
    order: Literal["little", "big"] = "big" if data.big_endian else "little"
    chunks = _Chunks(_WAV, slice(4, 8), 8, 12, order, 2)
    after = data.offset + data.promised
    return chunks.walk(file, at, at + after + after % 2)


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


def _next_au(file: BufferedReader, at: int, end: int) -> int | None:
    """Adds the size in the header."""
    offset, size = struct.unpack_from(">II", read_at(file, at, 12).ljust(12, b"\0"), 4)
    return _if_same(file, at + offset + size, end, _AU)


def _next_tta(file: BufferedReader, at: int, end: int) -> int | None:
    """Adds up the sizes in the seek table; a frame has 256/245 s."""
    header = read_at(file, at, 22).ljust(22, b"\0")
    rate, samples = struct.unpack_from("<II", header, 10)
    count = -(-samples * 245 // (256 * rate)) if rate else 0
    table = read_at(file, at + 22, min(4 * count, end))
    if len(table) < 4 * count:
        return None
    sizes = struct.unpack(f"<{count}I", table)
    return _if_same(file, at + 22 + 4 * count + 4 + sum(sizes), end, _TTA)


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
    return _if_same(file, at, end, _WAVPACK)


def _next_ape(file: BufferedReader, at: int, end: int) -> int | None:
    """Adds up the sizes in the descriptor."""
    header = read_at(file, at, 40).ljust(40, b"\0")
    version, *sizes = struct.unpack_from("<H2x8I", header, 4)
    if version < 3980:
        return None
    sizes[5] <<= 32  # the upper half of the size of the frames
    return _if_same(file, at + sum(sizes), end, _APE)


def _next_flv(file: BufferedReader, at: int, end: int) -> int | None:
    """Walks over the tags, which are packets; each is followed by its size."""
    at += 9
    while len(tag := read_at(file, at + 4, 11)) == 11:
        at += 4
        if _FLV.match(tag):
            return at
        at += 11 + int.from_bytes(tag[1:4], "big")
    return None


def _if_same(file: BufferedReader, at: int, end: int, magic: re.Pattern[bytes]) -> int | None:
    """Returns where a file begins after the tags at `at`, its own included; None if none does."""
    at = skip_tags(file, at, end)
    return at if magic.match(read_at(file, skip_id3(file, at, end), 16)) else None


_OGG_BEGIN = re.compile(rb"OggS\x00\x02")
_WAV = re.compile(rb"(?:RIFF|RF64|BW64|RIFX)....WAVE", re.DOTALL)
_PIPED_WAV = re.compile(rb"RIFF....WAVEfmt ", re.DOTALL)
_AIFF = re.compile(rb"FORM....AIF[FC]", re.DOTALL)
_CAF = re.compile(rb"caff\x00\x01")
_W64 = re.compile(rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb")
_ASF = re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11")
_EBML = re.compile(rb"\x1a\x45\xdf\xa3")
_FLAC = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
_AU = re.compile(rb"\.snd")
_TTA = re.compile(rb"TTA[12]")
_FLV = re.compile(rb"FLV\x01")
_WAVPACK = re.compile(rb"wvpk")
_APE = re.compile(rb"MAC ")
_WALKS: dict[re.Pattern[bytes], Walk] = {
    re.compile(rb"OggS"): _next_ogg,
    re.compile(rb"fLaC"): _next_flac,
    _WAV: _next_wav,
    _AIFF: _Chunks(_AIFF, slice(4, 8), 8, 12, "big", 2),
    _CAF: _Chunks(_CAF, slice(4, 12), 12, 8, "big"),
    _W64: _Chunks(_W64, slice(16, 24), 0, 40, multiple=8),
    _ASF: _Chunks(_ASF, slice(16, 24), 0, 0),
    re.compile(rb"....ftyp", re.DOTALL): _next_mp4,
    _EBML: _next_matroska,
    _AU: _next_au,
    _TTA: _next_tta,
    _FLV: _next_flv,
    _WAVPACK: _next_wavpack,
    _APE: _next_ape,
}
"""How a file begins -> how its end is found; every other file may be an MP3."""
