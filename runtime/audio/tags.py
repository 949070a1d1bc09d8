"""Tags (title, artist and so on) that are carried over from a song to its stems."""

from __future__ import annotations

from collections.abc import Mapping

Tags = dict[str, str]
"""Name -> text, for names in NAMES."""

NAMES = (
    *("title", "artist", "album", "date", "tracknumber", "genre"),
    *("comment", "copyright", "license"),
)
"""Tags that FLAC, MP3 and OGG can hold; WAV cannot hold a license."""
_FFMPEG_NAMES = {"track": "tracknumber", "year": "date", "description": "comment"}
_LONGEST = 2000  # characters; a comment may hold a whole file


_ID3_FRAMES = {
    "title": "TIT2",
    "artist": "TPE1",
    "album": "TALB",
    "date": "TDRC",
    "tracknumber": "TRCK",
    "genre": "TCON",
    "copyright": "TCOP",
}
_ID3_UTF8 = b"\x03"


def id3_tag(tags: Mapping[str, str]) -> bytes:
    """Encodes tags as the ID3v2.4 tag of an MP3 file, in UTF-8; empty if there are none.

    The tag that libsndfile writes keeps only ASCII (id3.org, ID3v2.4.0 structure and frames).
    """
    frames = b""
    for name, text in tags.items():
        value = text.encode()
        if name == "comment":  # language unknown, no description
            frames += _id3_frame("COMM", _ID3_UTF8 + b"XXX" + b"\0" + value)
        elif name in _ID3_FRAMES:
            frames += _id3_frame(_ID3_FRAMES[name], _ID3_UTF8 + value)
        else:
            frames += _id3_frame("TXXX", _ID3_UTF8 + name.encode() + b"\0" + value)
    return b"ID3\x04\0\0" + _synchsafe(len(frames)) + frames if frames else b""


def _id3_frame(identifier: str, payload: bytes) -> bytes:
    return identifier.encode() + _synchsafe(len(payload)) + bytes(2) + payload


def _synchsafe(size: int) -> bytes:
    """Encodes 28 bits in four bytes whose highest bit is 0."""
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def clean_tags(*sources: Mapping[str, str]) -> Tags:
    """Returns the tags of a file that can be carried over, cleaned.

    Args:
        sources: Tags from libsndfile or FFmpeg; names may be in upper or lower case. If a name
            occurs twice, the first text counts.

    Returns:
        Non-empty texts of printable characters. Texts in an unknown encoding are left out.
    """
    found: Tags = {}
    for source in sources:
        for name, text in source.items():
            name = _FFMPEG_NAMES.get(name.lower(), name.lower())
            text = "".join(char if char.isprintable() else " " for char in text).strip()
            if name in NAMES and text and "\N{REPLACEMENT CHARACTER}" not in text:
                found.setdefault(name, text[:_LONGEST])
    return {name: found[name] for name in NAMES if name in found}
