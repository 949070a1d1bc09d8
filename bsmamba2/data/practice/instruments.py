"""Parts played from a soundfont by FluidSynth, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bsmamba2.data.practice.score import Part
from bsmamba2.errors import DataError

Audio = NDArray[np.float64]
"""(channels, samples) of full scale 1."""

SAMPLE_RATE = 44_100
_DRUM_CHANNEL, _DRUM_BANK = 9, 128
_PAN, _CENTRE = 10, 64


def play(parts: Sequence[Part], soundfont: Path, seconds: float, rng: np.random.Generator) -> Audio:
    """Plays parts together.

    Args:
        parts: At most nine beside drums.
        soundfont: A General MIDI file, .sf2 or .sf3.
        seconds: Length of the result; what sounds on is cut.
        rng: Of pan, reverb and chorus.

    Returns:
        (2, samples).

    Raises:
        DataError: The soundfont cannot be read.
    """
    import fluidsynth

    synth = fluidsynth.Synth(samplerate=float(SAMPLE_RATE), gain=0.5)
    try:
        synth.setting("synth.reverb.active", int(rng.random() < 0.6))
        synth.setting("synth.chorus.active", int(rng.random() < 0.4))
        loaded = synth.sfload(str(soundfont))
        if loaded < 0:
            raise DataError(f"{soundfont} is no soundfont: name a .sf2 or .sf3 file.")
        events: list[tuple[float, bool, int, int, int]] = []
        for index, part in enumerate(parts):
            drums = part.role == "drums"
            channel = _DRUM_CHANNEL if drums else index + (index >= _DRUM_CHANNEL)
            synth.program_select(channel, loaded, _DRUM_BANK if drums else 0, part.program)
            pan = _CENTRE if part.role in ("drums", "bass") else rng.normal(_CENTRE, 25)
            synth.cc(channel, _PAN, int(np.clip(pan, 5, 122)))
            events += _events(part, channel, seconds)
        return _render(synth, sorted(events), round(seconds * SAMPLE_RATE))
    finally:
        synth.delete()


def _events(part: Part, channel: int, seconds: float) -> list[tuple[float, bool, int, int, int]]:
    """(time, starts, channel, pitch, velocity); a note ends before the next one starts."""
    events = []
    for note in part.notes:
        start = max(0.0, note.start_s)
        if start < seconds:
            velocity = int(np.clip(note.velocity, 1, 127))
            events.append((start, True, channel, note.pitch, velocity))
            events.append((start + note.duration_s, False, channel, note.pitch, 0))
    return events


def _render(synth: object, events: list[tuple[float, bool, int, int, int]], total: int) -> Audio:
    blocks: list[NDArray[np.int16]] = []
    done = 0
    for time_s, starts, channel, pitch, velocity in events:
        wanted = min(round(time_s * SAMPLE_RATE), total) - done
        if wanted > 0:
            blocks.append(synth.get_samples(wanted))  # type: ignore[attr-defined]
            done += wanted
        if starts:
            synth.noteon(channel, pitch, velocity)  # type: ignore[attr-defined]
        else:
            synth.noteoff(channel, pitch)  # type: ignore[attr-defined]
    if total > done:
        blocks.append(synth.get_samples(total - done))  # type: ignore[attr-defined]
    return np.concatenate(blocks).reshape(-1, 2).T / 32768.0
