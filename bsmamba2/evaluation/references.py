"""Which files of a song are its references: the target, and what adds up to the residual."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bsmamba2.data.tracks import MIXTURE, Track
from bsmamba2.errors import DataError

MUSDB = ("vocals", "drums", "bass", "other")
"""The stems of MUSDB18."""
_RESTS = ("instrumental", "accompaniment")  # names of everything but the target


def reference_files(
    track: Track, target: str, *, named: Sequence[str] = (), trained: Sequence[str] = ()
) -> dict[str, Path]:
    """Returns the files of the target, of the other stems, and of the mixture if there is one.

    The first of these sets of stems that the song has is taken: those that the network was trained
    on; MUSDB18's; the target with "instrumental", "accompaniment" or "other"; the target and the
    mixture alone. If the song has more of MUSDB18's stems than a set of parts, such as vocals and
    other, these do not add up to its mixture, and the set is passed over.

    Args:
        track: The song.
        target: The stem that the network estimates.
        named: Stems to take instead, which add up to the mixture; the target is one of them.
        trained: Stems that the network was trained on, or none.

    Returns:
        Name -> file; MIXTURE first if the song has one. Without other stems than the target, the
        residual is the mixture minus the target; without a mixture, it is the sum of the stems.

    Raises:
        DataError: A file is missing, or there are two of one name.
    """
    mixture = [MIXTURE] if track.has(MIXTURE) else []
    pairs = [(target, rest) for rest in (*_RESTS, "other") if rest != target]
    sets = [trained, MUSDB, *pairs, (target,)]
    sets = [stems for stems in sets if target in stems and _adds_up(stems, track)]
    for stems in [named] if named else sets:
        if (mixture or len(stems) > 1) and all(track.has(stem) for stem in stems):
            return {name: track.stem(name) for name in (*mixture, *stems)}
    missing = [stem for stem in named or (target, MIXTURE) if not track.has(stem)] or [MIXTURE]
    needs = (
        "add what --stems names, or name the stems that this song has"
        if named
        else f"a song needs {target}, and mixture, instrumental or all other stems, which --stems "
        "can name"
    )
    raise DataError(f"{track.folder} has no file called {' or '.join(missing)}: {needs}.")


def _adds_up(stems: Sequence[str], track: Track) -> bool:
    """Whether stems make the mixture; the target alone does so with the mixture minus itself."""
    is_whole = len(stems) == 1 or any(rest in stems for rest in _RESTS)
    return is_whole or all(stem in stems or not track.has(stem) for stem in MUSDB)
