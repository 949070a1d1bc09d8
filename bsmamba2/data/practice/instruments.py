"""Plays parts from a soundfont with FluidSynth, in memory."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bsmamba2.data.practice.installed import import_quietly
from bsmamba2.data.practice.score import Part
from bsmamba2.errors import DataError

Audio = NDArray[np.float64]
"""(channels, samples), full scale 1."""

SAMPLE_RATE = 44_100
_DRUM_CHANNEL, _DRUM_BANK = 9, 128
_PAN, _CENTRE = 10, 64
_FAILED = -1
_LOG_LEVELS = 5


class _Event(NamedTuple):
    """Start or end of a note; sorts by time, ends before starts at the same time."""

    time_s: float
    starts: bool
    channel: int
    pitch: int
    velocity: int


def play(parts: Sequence[Part], soundfont: Path, seconds: float, rng: np.random.Generator) -> Audio:
    """Plays parts together.

    Args:
        parts: At most nine besides drums. If the soundfont lacks an instrument, the first one of
            its bank plays instead: a grand piano, the standard drum kit.
        soundfont: A General MIDI file, .sf2 or .sf3.
        seconds: Length of the result; notes still sounding then are cut off.
        rng: Chooses pan, reverb and chorus.

    Returns:
        (2, samples).

    Raises:
        DataError: The soundfont cannot be read, or is not General MIDI.
    """
    _silence_log()
    synth = import_quietly("fluidsynth").Synth(samplerate=float(SAMPLE_RATE), gain=0.5)
    try:
        # Samples of .sf3 are compressed: decode only those in use. With .sf2 this would change the
        # rendering slightly, and a seed must keep making the same songs.
        synth.setting("synth.dynamic-sample-loading", int(soundfont.suffix == ".sf3"))
        synth.setting("synth.reverb.active", int(rng.random() < 0.6))
        synth.setting("synth.chorus.active", int(rng.random() < 0.4))
        loaded = synth.sfload(str(soundfont))
        if loaded == _FAILED:
            raise DataError(f"{soundfont} is not a soundfont: name a .sf2 or .sf3 file.")
        events: list[_Event] = []
        for index, part in enumerate(parts):
            drums = part.role == "drums"
            channel = _DRUM_CHANNEL if drums else index + (index >= _DRUM_CHANNEL)
            bank = _DRUM_BANK if drums else 0
            # Select the instrument, or the first one in its bank.
            if all(
                synth.program_select(channel, loaded, bank, program) == _FAILED
                for program in (part.program, *range(128))
            ):
                raise DataError(
                    f"{soundfont} is not General MIDI, as it has no bank {bank}: name another file."
                )
            pan = _CENTRE if part.role in ("drums", "bass") else rng.normal(_CENTRE, 25)
            synth.cc(channel, _PAN, int(np.clip(pan, 5, 122)))
            events += _events(part, channel, seconds)
        return _render(synth, sorted(events), round(seconds * SAMPLE_RATE))
    finally:
        synth.delete()


@functools.cache
def _silence_log() -> None:
    """Stops FluidSynth's messages on stderr; its return values report the same failures."""
    library = ctypes.CDLL(ctypes.util.find_library("fluidsynth"))
    for level in range(_LOG_LEVELS):
        library.fluid_set_log_function(level, None, None)


def _events(part: Part, channel: int, seconds: float) -> list[_Event]:
    events: list[_Event] = []
    for note in part.notes:
        start = max(0.0, note.start_s)
        if start < seconds:
            velocity = int(np.clip(note.velocity, 1, 127))
            events.append(_Event(start, True, channel, note.pitch, velocity))
            events.append(_Event(start + note.duration_s, False, channel, note.pitch, 0))
    return events


def _render(synth: Any, events: Sequence[_Event], total: int) -> Audio:
    blocks: list[NDArray[np.int16]] = []
    done = 0
    for event in events:
        wanted = min(round(event.time_s * SAMPLE_RATE), total) - done
        if wanted > 0:
            blocks.append(synth.get_samples(wanted))
            done += wanted
        if event.starts:
            synth.noteon(event.channel, event.pitch, event.velocity)
        else:
            synth.noteoff(event.channel, event.pitch)
    if total > done:
        blocks.append(synth.get_samples(total - done))
    return np.concatenate(blocks).reshape(-1, 2).T / 32768.0
