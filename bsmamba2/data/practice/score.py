"""Composes a song: tempo, key, chords, the notes of every instrument, the phrases of the voice.

There is little music theory here: a separator has to learn how instruments and voices sound
together, so variety matters and beauty does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAJOR = (0, 2, 4, 5, 7, 9, 11)
MINOR = (0, 2, 3, 5, 7, 8, 10)
PROGRESSIONS = ((0, 5, 3, 4), (0, 3, 4, 0), (5, 3, 0, 4), (0, 4, 5, 3), (0, 2, 3, 4), (0, 0, 3, 4),
                (5, 4, 3, 4), (1, 4, 0, 0))  # fmt: skip
POWER_CHORD_PROGRAMS = (29, 30)
_KICKS, _SNARES, _TOMS = (35, 36), (38, 40), (41, 45, 48, 50, 38)
_HATS, _CRASHES = (42, 42, 46, 51, 44), (49, 57)


@dataclass(frozen=True)
class Note:
    """One note of an instrument or a voice."""

    start_s: float
    duration_s: float
    pitch: int
    """MIDI note number, which selects the instrument in a drum kit."""
    velocity: float = 100.0


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one instrument plays."""

    role: str
    """A key of `sounds.ROLES`, or "drums"."""
    program: int
    notes: tuple[Note, ...]


@dataclass(frozen=True, kw_only=True)
class Melody:
    """What the lead voice sings."""

    phrases: tuple[tuple[Note, ...], ...]
    """Each is sung in one breath; the voice is silent between them."""
    lowest: int
    """Lowest MIDI note of the voice's range."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Length, tempo, key and chords, which all parts share."""

    seconds: float
    beat_s: float
    key: int
    """Pitch class of the tonic."""
    scale: tuple[int, ...]
    progression: tuple[int, ...]

    @property
    def bars(self) -> int:
        """Number of bars, of four beats each, that begin within the song."""
        return int(self.seconds / (4 * self.beat_s)) + 1

    def bar_s(self, bar: int) -> float:
        """Start of a bar in seconds."""
        return bar * 4 * self.beat_s

    def degree(self, number: int) -> int:
        """MIDI note number of a degree of the scale, in the lowest octave."""
        octave, step = divmod(number, len(self.scale))
        return self.key + self.scale[step] + 12 * octave

    def chord(self, bar: int) -> int:
        """Scale degree on which a bar's chord is built."""
        return self.progression[bar % len(self.progression)]


def compose_frame(rng: np.random.Generator, seconds: float) -> Frame:
    """Draws tempo, key and chords."""
    return Frame(
        seconds=seconds,
        beat_s=60 / rng.uniform(66, 162),
        key=int(rng.integers(12)),
        scale=MINOR if rng.random() < 0.5 else MAJOR,
        progression=PROGRESSIONS[rng.integers(len(PROGRESSIONS))],
    )


def compose_drums(rng: np.random.Generator, frame: Frame, kit: int) -> Part:
    """Composes a one-bar pattern with fills and crashes."""
    beat = frame.beat_s
    kicks = [0.0, *(k for k in (1.5, 2.0, 2.5, 3.5) if rng.random() < 0.45)]
    if rng.random() < 0.3:
        kicks = [0.0, 1.0, 2.0, 3.0]
    snares = (1.0, 3.0) if rng.random() < 0.8 else (2.0,)
    grid = float(rng.choice([0.25, 0.5, 0.5, 1.0]))
    hat = int(rng.choice(_HATS))
    swing = rng.uniform(0, 0.08) if rng.random() < 0.4 else 0.0
    notes: list[Note] = []

    def hit(start_s: float, pitch: int, velocity: float, length_s: float = 0.3) -> None:
        notes.append(Note(start_s + rng.normal(0, 0.004), length_s, pitch, rng.normal(velocity, 9)))

    for bar in range(frame.bars):
        start = frame.bar_s(bar)
        for place in kicks:
            hit(start + place * beat, int(rng.choice(_KICKS)), 110)
        for place in snares:
            hit(start + place * beat, int(rng.choice(_SNARES)), 108)
        for i in range(round(4 / grid)):
            hit(start + (i * grid + swing * (i % 2)) * beat, hat, 80)
        if bar % 4 == 3 and rng.random() < 0.7:
            for place in np.arange(3, 4, 0.25):
                hit(start + place * beat, int(rng.choice(_TOMS)), 105)
        if bar % 4 == 0:
            hit(start, int(rng.choice(_CRASHES)), 95, 1.5)
    return Part(role="drums", program=kit, notes=tuple(notes))


def compose_bass(rng: np.random.Generator, frame: Frame, program: int) -> Part:
    """Composes the roots of the chords, with occasional octaves and fifths."""
    style = int(rng.integers(4))
    notes: list[Note] = []
    for bar in range(frame.bars):
        root = 28 + (frame.degree(frame.chord(bar)) - 28) % 12
        places: list[tuple[float, float]] = {
            0: [(0.5 * i, 0.45) for i in range(8)],
            1: [(0.0, 1.4), (1.5, 0.5), (2.0, 1.4), (3.5, 0.4)],
            2: [(0.0, 3.8)],
            3: [(0.25 * i, 0.3) for i in range(16) if rng.random() < 0.5],
        }[style]
        for place, length in places:
            start = frame.bar_s(bar) + place * frame.beat_s + rng.normal(0, 0.006)
            pitch = root + int(rng.choice([0, 0, 0, 0, 12, 7]))
            notes.append(Note(start, length * frame.beat_s, pitch, rng.normal(100, 10)))
    return Part(role="bass", program=program, notes=tuple(notes))


def compose_layer(rng: np.random.Generator, frame: Frame, role: str, program: int) -> Part:
    """Composes an instrument of the accompaniment, which rests in about one bar in ten."""
    octave, velocity = int(rng.integers(4, 6)), rng.uniform(65, 110)
    notes: list[Note] = []
    for bar in range(frame.bars):
        if rng.random() < 0.1:
            continue
        chord = [frame.degree(frame.chord(bar) + i) + 12 * octave for i in (0, 2, 4)]
        if role == "strum" and program in POWER_CHORD_PROGRAMS:
            chord = [chord[0], chord[2]]
        for place, length, pitch in _layer_bar(rng, frame, role, bar, chord):
            start = frame.bar_s(bar) + place * frame.beat_s + rng.normal(0, 0.005)
            notes.append(Note(start, length * frame.beat_s, pitch, rng.normal(velocity, 7)))
    return Part(role=role, program=program, notes=tuple(notes))


def _layer_bar(
    rng: np.random.Generator, frame: Frame, role: str, bar: int, chord: list[int]
) -> list[tuple[float, float, int]]:
    """Returns the notes of a bar as (start, length, pitch), the first two in beats."""
    if role == "pad":
        return [(0.0, 3.9, pitch) for pitch in chord]
    if role == "stab":
        places = rng.choice(np.arange(0, 4, 0.5), 4, replace=False)
        return [(float(place), 0.4, pitch) for place in places for pitch in chord]
    if role == "strum":
        strings = [*chord, chord[0] + 12]
        return [
            (place + 0.02 * i, 0.45, pitch - 12)
            for place in (0.0, 1.0, 1.5, 2.5, 3.0, 3.5)
            if rng.random() < 0.8
            for i, pitch in enumerate(strings)
        ]
    if role == "arpeggio":
        return [
            (0.5 * i, 0.5, chord[i % len(chord)] + 12 * int(rng.random() < 0.3)) for i in range(8)
        ]
    solo: list[tuple[float, float, int]] = []
    place = 0.0
    while place < 4:
        length = float(rng.choice([0.5, 0.5, 1.0, 1.5]))
        if rng.random() < 0.75:
            degree = frame.chord(bar) + int(rng.choice([0, 1, 2, 4, 6]))
            solo.append((place, 0.95 * length, frame.degree(degree) + 60))
        place += length
    return solo


def compose_melody(rng: np.random.Generator, frame: Frame) -> Melody:
    """Composes phrases of one to twelve notes, with silence between them and few in some songs."""
    lowest = int(rng.choice([46, 48, 50, 52, 55, 57, 60]))
    range_ = [
        pitch
        for pitch in range(lowest, lowest + int(rng.integers(8, 15)))
        if (pitch - frame.key) % 12 in frame.scale
    ]
    gap_s = rng.uniform(0.1, 1.6) if rng.random() < 0.8 else rng.uniform(2, 5)
    lengths = (0.25, 0.25, 0.5) if rng.random() < 0.12 else (0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 2.0)
    pitch = range_[len(range_) // 2]
    phrases: list[tuple[Note, ...]] = []
    now = rng.uniform(0.1, 2.5)
    while now < frame.seconds - 1:
        phrase: list[Note] = []
        count = int(rng.choice([1, 2, 4, 5, 6, 8, 10, 12]))
        for i in range(count):
            length = frame.beat_s * float(rng.choice(lengths))
            if i == count - 1:
                length *= rng.uniform(1, 2.5)
            length = min(length, frame.seconds - 0.1 - now)
            if length < 0.08:
                break
            weights = np.exp(-np.abs(np.array(range_) - pitch) / 2.5)
            pitch = int(rng.choice(range_, p=weights / weights.sum()))
            phrase.append(Note(now, length, pitch))
            now += length
        if phrase:
            phrases.append(tuple(phrase))
        now += 0.12 + rng.exponential(gap_s)
    return Melody(phrases=tuple(phrases), lowest=lowest)
