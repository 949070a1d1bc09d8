"""Which files of a song are its references: the target, and what adds up to the residual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bsmamba2.data.tracks import MIXTURE, Track
from bsmamba2.errors import DataError

MUSDB = ("vocals", "drums", "bass", "other")
"""The stems of MUSDB18."""
_RESTS = ("instrumental", "accompaniment", "other")  # names of everything but the target


def reference_files(
    track: Track, target: str, *, named: Sequence[str] = (), trained: Sequence[str] = ()
) -> dict[str, Path]:
    """Returns the files of the target, of the other stems, and of the mixture if there is one.

    The first of these sets of stems that the song has is taken: those that the network was trained
    on; MUSDB18's; the target with "instrumental", "accompaniment" or "other"; the target and the
    mixture alone. "other" is everything but the target only where the song has none of MUSDB18's
    other stems. Where such a stem is there, a song that lacks one is not taken to be the target
    and a mixture.

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
    for stems in [named] if named else _choices(track, target, trained):
        complete = bool(mixture) or len(stems) > 1
        if complete and all(track.has(stem) for stem in stems):
            return {name: track.stem(name) for name in (*mixture, *stems)}
    raise DataError(_what_is_missing(track, target, named))


def _choices(track: Track, target: str, trained: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yields sets of stems with the target, the preferred one first."""
    yield from (stems for stems in (trained, MUSDB) if target in stems)
    parts = _parts(track, target)
    for rest in _RESTS:
        if rest != target and not (rest == "other" and parts):
            yield (target, rest)
    if not parts and not track.has("other"):
        yield (target,)


def _parts(track: Track, target: str) -> list[str]:
    """Lists the stems that show that "other" is not everything but the target."""
    return [stem for stem in MUSDB if stem not in (target, "other") and track.has(stem)]


def _what_is_missing(track: Track, target: str, named: Sequence[str]) -> str:
    wanted = named or (MUSDB if target in MUSDB and _parts(track, target) else (target, MIXTURE))
    missing = [stem for stem in wanted if not track.has(stem)] or [MIXTURE]
    first, more = track.folder / f"{missing[0]}.wav", missing[1:]
    path = f"{first} is missing" + (f", and so {_are(more)}" if more else "")
    if named:
        return f"{path}: add what --stems names, or name the stems that this song has."
    if len(wanted) == len(MUSDB):
        return (
            f"{path}: a song with {_listed(_parts(track, target))} needs {_listed(MUSDB)}, or "
            f"{target} and instrumental; otherwise name its stems with --stems."
        )
    return (
        f"{path}: a song needs {target} and one of {_listed((MIXTURE, *_RESTS))}; otherwise name "
        "its stems with --stems."
    )


def _are(names: Sequence[str]) -> str:
    return f"{'is' if len(names) == 1 else 'are'} {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
