"""Titles, artists and the like, as far as every written format holds them."""

from __future__ import annotations

from collections.abc import Mapping

Tags = dict[str, str]
"""Name -> text; names are of NAMES."""

NAMES = (
    *("title", "artist", "album", "date", "tracknumber", "genre"),
    *("comment", "copyright", "license"),
)
"""What libsndfile writes into WAV, FLAC, MP3 and OGG; its 'software' is the writer's own."""
_FFMPEG_NAMES = {"track": "tracknumber", "year": "date", "description": "comment"}
_LONGEST = 2000  # characters; a comment may hold a whole file


def clean_tags(*sources: Mapping[str, str]) -> Tags:
    """What of a file's own tags can be carried over.

    Args:
        sources: Names, in libsndfile's or FFmpeg's words and any case, and texts. Of two texts of
            one name the first counts.

    Returns:
        Texts of printable characters, none empty. Texts in an unknown encoding are left out.
    """
    found: Tags = {}
    for source in sources:
        for name, text in source.items():
            name = _FFMPEG_NAMES.get(name.lower(), name.lower())
            text = "".join(char if char.isprintable() else " " for char in text).strip()
            if name in NAMES and text and "\N{REPLACEMENT CHARACTER}" not in text:
                found.setdefault(name, text[:_LONGEST])
    return {name: found[name] for name in NAMES if name in found}
