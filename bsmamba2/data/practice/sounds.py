"""Soundfonts, instruments, drum kits and voices, by split.

Some sounds are used only in the test split: a third of every role's instruments, of the drum kits,
languages and speakers, and MuseScore's soundfont if another one is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bsmamba2.errors import DataError
from bsmamba2.system.files import existing_file

T = TypeVar("T")

SOUNDFONT_FOLDERS = ("/usr/share/sounds/sf2", "/usr/share/sounds/sf3", "/usr/share/soundfonts")
"""Where Debian, Ubuntu and Fedora put soundfonts."""

# General MIDI programs, counted from 0, by their role in a song. Choirs (52-54, 85, 91) are left
# out: they would put voices into `other`.
ROLES: dict[str, tuple[int, ...]] = {
    "bass": (32, 33, 34, 35, 36, 37, 38, 39),
    "pad": (16, 17, 18, 19, 21, 48, 49, 50, 51, 88, 89, 90, 92, 93, 94, 95),
    "stab": (0, 1, 2, 3, 4, 5, 7, 16, 61, 62, 63, 80, 81),
    "arpeggio": (0, 4, 6, 8, 11, 12, 24, 25, 26, 27, 46, 81, 84, 87),
    "strum": (24, 25, 26, 27, 28, 29, 30),
    "lead": (
        11,
        22,
        29,
        30,
        40,
        41,
        42,
        56,
        57,
        60,
        61,
        64,
        65,
        66,
        68,
        71,
        73,
        75,
        80,
        81,
        82,
        87,
    ),
}
KITS = (0, 8, 16, 24, 25, 32, 40, 48)

LANGUAGES = ("en-us", "en-gb", "es", "fr", "it", "de", "pt", "sv", "pl", "nl", "ro", "hu", "tr")
VARIANTS = ("", "+m1", "+m2", "+m3", "+m4", "+m5", "+m6", "+m7", "+f1", "+f2", "+f3", "+f4", "+f5",
            "+klatt", "+klatt2", "+klatt4")  # fmt: skip
FLITE_VOICES = {"train": ("slt", "awb"), "test": ("rms", "kal16")}
"""flite's voices by split, under its own names; slt and rms are made from recordings."""


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A speaker of a speech synthesiser."""

    engine: str
    """espeak-ng or flite."""
    name: str
    """The synthesiser's name for the voice."""

    @property
    def bandwidth(self) -> float:
        """Highest frequency in the synthesiser's speech, in Hz."""
        return 10_300.0 if self.engine == "espeak-ng" else 7_600.0


@dataclass(frozen=True, kw_only=True)
class Sounds:
    """Soundfonts, instruments and voices for the songs of a split."""

    soundfonts: tuple[Path, ...]
    """General MIDI soundfonts."""
    roles: dict[str, tuple[int, ...]]
    """Role -> programs."""
    kits: tuple[int, ...]
    """Programs of the drum bank."""
    espeak: tuple[Voice, ...]
    """Voices of espeak-ng."""
    flite: tuple[Voice, ...]
    """Voices of flite."""


def find_soundfonts() -> list[Path]:
    """Finds the General MIDI soundfonts in the usual folders; each once, sorted by name.

    Raises:
        DataError: None is installed.
    """
    found = {
        path.resolve()
        for folder in SOUNDFONT_FOLDERS
        for path in Path(folder).glob("*.sf[23]")
        if "gm" in path.name.lower() or "general" in path.name.lower()
    }
    if not found:
        raise DataError(
            "No General MIDI soundfont is installed: 'apt-get install fluid-soundfont-gm' or "
            "timgm6mb-soundfont, or name a file with --soundfont."
        )
    return sorted(found, key=lambda path: path.name)


def check_soundfont(path: Path) -> None:
    """Raises BsmError if a file cannot be read or is not a complete soundfont.

    FluidSynth refuses such a file too, but also prints messages that cannot be switched off.
    """
    with existing_file(path).open("rb") as file:
        header = file.read(12)
    whole = 8 + int.from_bytes(header[4:8], "little")
    if header[:4] != b"RIFF" or header[8:] != b"sfbk" or path.stat().st_size < whole:
        raise DataError(f"{path} is not a soundfont or is truncated: name a .sf2 or .sf3 file.")


def choose_sounds(split: str, soundfonts: Sequence[Path]) -> Sounds:
    """Chooses the sounds of a split: test has its own, train and valid share theirs.

    Args:
        split: train, valid or test.
        soundfonts: The soundfonts of the whole set.
    """
    side = "test" if split == "test" else "train"
    apart = [path for path in soundfonts if path.name.startswith("MuseScore")]
    common = [path for path in soundfonts if path not in apart]
    mine = (apart if side == "test" else common) if apart and common else soundfonts
    variants = _side(side, VARIANTS)
    return Sounds(
        soundfonts=tuple(mine),
        roles={role: _side(side, programs) for role, programs in ROLES.items()},
        kits=_side(side, KITS),
        espeak=tuple(
            Voice(engine="espeak-ng", name=language + variant)
            for language in _side(side, LANGUAGES)
            for variant in variants
        ),
        flite=tuple(Voice(engine="flite", name=name) for name in FLITE_VOICES[side]),
    )


def _side(side: str, choices: tuple[T, ...]) -> tuple[T, ...]:
    """Selects a side's choices: every third one is reserved for the test split."""
    return tuple(c for i, c in enumerate(choices) if (i % 3 == 2) == (side == "test"))
