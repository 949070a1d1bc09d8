"""Singing voices: synthetic speech, analysed and resynthesised on a melody by WORLD.

WORLD (Morise et al., 2016) turns speech into a fundamental frequency, a spectral envelope and an
aperiodicity every 5 ms. For singing, voiced frames are stretched to the length of the phrase while
consonants are not, the pitch follows the melody with glides, vibrato and drift, and the envelope is
warped to change the vocal tract. Speech synthesisers stop at 8 or 11 kHz; above that, the envelope
is extrapolated with a falling slope.
"""

from __future__ import annotations

import io
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from bsmamba2.data.practice.installed import import_quietly
from bsmamba2.data.practice.instruments import SAMPLE_RATE
from bsmamba2.data.practice.score import Note
from bsmamba2.data.practice.sounds import Voice
from bsmamba2.errors import DataError

Mono = NDArray[np.float64]
FRAME_S = 0.005
_LYRICS = (
    "love night day fire rain heart baby dream light away home never always forever hold me you "
    "and the run fly sing world time gone stay blue sky river road shine tell why feel real "
    "down up around tonight girl boy mama summer winter lonely crazy little sweet dance slow "
    "burn fall rise again into without another morning believe remember nobody yesterday la na "
    "oh yeah hey"
)
WORDS = _LYRICS.split()


@dataclass(frozen=True, kw_only=True)
class Timbre:
    """How a speaker sounds when singing."""

    tract: float
    """Factor by which formant frequencies are scaled."""
    vibrato: float
    """Depth in semitones."""
    breath: float
    """Factor by which the aperiodicity is scaled."""


class _Speech(NamedTuple):
    f0: NDArray[np.float64]  # (frames,) Hz, 0 where unvoiced
    envelope: NDArray[np.float64]  # (frames, bins) power
    aperiodicity: NDArray[np.float64]  # (frames, bins) 0 to 1


def choose_timbre(rng: np.random.Generator, lowest: int) -> Timbre:
    """Draws a timbre for a voice by its lowest MIDI note; high voices have short vocal tracts."""
    tract = rng.uniform(0.82, 1.2) if lowest < 55 else rng.uniform(0.95, 1.3)
    return Timbre(tract=tract, vibrato=rng.uniform(0, 0.5), breath=rng.uniform(0.7, 1.8))


def sing(
    phrases: Sequence[Sequence[Note]],
    voices: Sequence[Voice],
    timbre: Timbre,
    seconds: float,
    rng: np.random.Generator,
) -> Mono:
    """Sings a melody with random words.

    Args:
        phrases: The notes of each phrase, which is sung in one breath.
        voices: Speakers; one is drawn for each phrase.
        timbre: Timbre of all phrases.
        seconds: Length of the result.
        rng: Source of all random choices.

    Returns:
        (samples,), silent between phrases and at about -20 dBFS RMS within them.

    Raises:
        DataError: A speech synthesiser failed.
    """
    total = round(seconds * SAMPLE_RATE)
    result = np.zeros(total)
    for phrase in phrases:
        voice = voices[int(rng.integers(len(voices)))]
        count = max(1, round(len(phrase) * rng.uniform(0.5, 0.9)))
        speech = _analyse(_speak(" ".join(rng.choice(WORDS, count)), voice, rng), voice, rng)
        sung = _sing_phrase(phrase, speech, timbre, rng)
        start = round(phrase[0].start_s * SAMPLE_RATE)
        sung = sung[: total - start]
        result[start : start + len(sung)] += sung
    return result


def _speak(text: str, voice: Voice, rng: np.random.Generator) -> Mono:
    """Returns speech, (samples,) at SAMPLE_RATE; raises DataError."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        speed = str(rng.integers(110, 180))
        command = {
            "espeak-ng": ["espeak-ng", "-v", voice.name, "-s", speed, "-w", file.name, text],
            "flite": ["flite", "-voice", voice.name, "-t", text, "-o", file.name],
        }[voice.engine]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            samples, rate = soundfile.read(io.BytesIO(file.read()))
        except soundfile.LibsndfileError:
            samples, rate = np.zeros(0), 1
    if not samples.any():
        reason = done.stderr.strip() or "the result is silent"
        raise DataError(f"'{' '.join(command[:3])}' produces no speech: {reason}.")
    resampled: Mono = soxr.resample(samples, rate, SAMPLE_RATE)
    return resampled


def _analyse(speech: Mono, voice: Voice, rng: np.random.Generator) -> _Speech:
    world = import_quietly("pyworld")
    speech = np.ascontiguousarray(0.5 * speech / np.abs(speech).max())
    f0, times = world.dio(
        speech, SAMPLE_RATE, f0_floor=60, f0_ceil=500, frame_period=1000 * FRAME_S
    )
    f0 = world.stonemask(speech, f0, times, SAMPLE_RATE)
    envelope = world.cheaptrick(speech, f0, times, SAMPLE_RATE)
    aperiodicity = world.d4c(speech, f0, times, SAMPLE_RATE)
    # Above the synthesiser's bandwidth: start at the level below it, fall off, and be mostly noise.
    bins = envelope.shape[1]
    edge = int(voice.bandwidth / (SAMPLE_RATE / 2) * (bins - 1))
    below = np.log(envelope[:, edge - edge // 6 : edge] + 1e-16).mean(axis=1, keepdims=True)
    slope = np.log(10) * rng.uniform(1, 2.6) * np.arange(bins - edge) / (bins - edge)
    envelope[:, edge:] = np.exp(below - slope)
    aperiodicity[:, edge:] = np.maximum(aperiodicity[:, edge:], rng.uniform(0.5, 0.95))
    return _Speech(f0, envelope, aperiodicity)


def _sing_phrase(
    phrase: Sequence[Note], speech: _Speech, timbre: Timbre, rng: np.random.Generator
) -> Mono:
    begin_s, last = phrase[0].start_s, phrase[-1]
    frames = max(8, round((last.start_s + last.duration_s - begin_s) / FRAME_S))
    source = _time_map(speech.f0 > 0, frames)
    pitch, level = _curves(phrase, frames, rng)
    now_s = np.arange(frames) * FRAME_S
    swing = np.sin(2 * np.pi * rng.uniform(4.6, 6.8) * now_s + rng.uniform(0, 2 * np.pi))
    drift = np.cumsum(rng.normal(0, 0.01, frames))
    drift -= np.linspace(drift[0], drift[-1], frames)
    onset = np.clip(now_s % 1.0 / 0.4, 0, 1)  # vibrato fades in
    pitch = pitch + timbre.vibrato * swing * onset + 0.5 * drift + rng.normal(0, 0.03, frames)
    f0 = np.where(speech.f0[source] > 0, 440.0 * 2 ** ((pitch - 69) / 12), 0.0)
    envelope = _warp(speech.envelope[source], timbre.tract) * level[:, None] ** 2
    noise = np.clip(_warp(speech.aperiodicity[source], timbre.tract) * timbre.breath, 0, 1)
    sung: Mono = import_quietly("pyworld").synthesize(
        f0, envelope, noise, SAMPLE_RATE, 1000 * FRAME_S
    )
    sung *= 0.1 * 10 ** (rng.uniform(-3, 3) / 20) / np.sqrt(np.mean(sung**2) + 1e-9)
    fade = np.linspace(0, 1, round(0.01 * SAMPLE_RATE))
    sung[: len(fade)] *= fade
    sung[-len(fade) :] *= fade[::-1]
    return sung


def _time_map(voiced: NDArray[np.bool_], frames: int) -> NDArray[np.intp]:
    """Returns the speech frame for each sung frame: vowels are stretched, consonants hardly."""
    consonants = max(1, int(np.count_nonzero(~voiced)))
    vowels = max(1, int(np.count_nonzero(voiced)))
    rate = min(1.0, 0.5 * frames / consonants)
    lengths = np.where(voiced, max(0.05, frames - consonants * rate) / vowels, rate)
    ends = np.cumsum(lengths)
    at = np.interp(np.linspace(0, ends[-1], frames), ends, np.arange(len(ends)))
    return at.round().astype(np.intp)


def _curves(
    phrase: Sequence[Note], frames: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns pitch (MIDI numbers, gliding between notes) and level, both (frames,)."""
    pitch, level = np.zeros(frames), np.ones(frames)
    for note in phrase:
        first = round((note.start_s - phrase[0].start_s) / FRAME_S)
        count = len(pitch[first : first + round(note.duration_s / FRAME_S) + 2])
        rise = np.linspace(0, 1, count)
        pitch[first : first + count] = note.pitch
        level[first : first + count] = (0.6 + 0.4 * np.minimum(1, 6 * rise)) * (1 - 0.35 * rise)
    glide = np.exp(-np.arange(int(rng.uniform(6, 22))) / rng.uniform(3, 8))
    padded = np.concatenate([np.full(len(glide) - 1, pitch[0]), pitch])
    return np.convolve(padded, glide / glide.sum(), "valid"), level


def _warp(values: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """Stretches the frequency axis of (frames, bins): reads each bin at bin / factor."""
    last = values.shape[1] - 1
    at = np.minimum(np.arange(last + 1) / factor, last)
    low = at.astype(np.intp)
    weight = at - low
    high = np.minimum(low + 1, last)
    warped = values[:, low] * (1 - weight) + values[:, high] * weight
    return np.ascontiguousarray(warped)  # WORLD requires it
