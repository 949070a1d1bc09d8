"""Augmentations of a stem before mixing, each off unless its probability is above 0.

The published training uses none of them: only independent draws, silencing and gains.
"""

from __future__ import annotations

import importlib.util
import math

import numpy as np
from numpy.typing import NDArray

from bsmamba2.config.training import DataConfig
from bsmamba2.errors import MissingExtraError

Samples = NDArray[np.float32]

_BELLS = 3  # filters in series
_BELL_HZ = (60.0, 10_000.0)  # range of the centre frequencies, log-uniform
_BELL_Q = 0.7  # about two octaves wide


def check_augmentations(data: DataConfig) -> None:
    """Raises MissingExtraError if a configured augmentation needs a package that is missing."""
    if data.pitch_probability > 0 and importlib.util.find_spec("python_stretch") is None:
        raise MissingExtraError("data.pitch_probability above 0", "augment")


def augment(
    samples: Samples, rng: np.random.Generator, data: DataConfig, sample_rate: int
) -> Samples:
    """Applies random augmentations to a stem.

    The same random numbers are drawn whatever the probabilities are, so that switching one
    augmentation on or off does not affect the others.

    Args:
        samples: float32 (channels, n); may be changed in place.
        rng: Source of all random choices.
        data: Probabilities and ranges.
        sample_rate: Hz.

    Returns:
        float32 (channels, n).
    """
    swap, polarity, eq, pitch = rng.random(4)
    semitones = rng.uniform(-data.pitch_semitones, data.pitch_semitones)
    low, high = map(math.log, _BELL_HZ)
    centres_hz = np.exp(rng.uniform(low, high, size=_BELLS))
    gains_db = rng.uniform(-data.eq_gain_db, data.eq_gain_db, size=_BELLS)
    if pitch < data.pitch_probability:
        samples = transpose(samples, semitones, sample_rate)
    if eq < data.eq_probability:
        samples = equalise(samples, centres_hz, gains_db, sample_rate)
    if swap < data.swap_probability:
        samples = samples[::-1]
    if polarity < data.polarity_probability:
        samples = -samples
    return np.ascontiguousarray(samples)


def equalise(
    samples: Samples,
    centres_hz: NDArray[np.float64],
    gains_db: NDArray[np.float64],
    sample_rate: int,
) -> Samples:
    """Applies bell filters in series, the same to all channels; float32 of the same shape.

    A bell has its gain at the centre and unity gain far from it (Bristow-Johnson, Audio EQ
    Cookbook, "peakingEQ"). A centre above 0.45 of the sample rate is lowered to that.
    """
    from scipy.signal import sosfilt

    angle = 2 * np.pi * np.minimum(centres_hz / sample_rate, 0.45)  # w0
    width = np.sin(angle) / (2 * _BELL_Q)  # alpha
    height = 10.0 ** (gains_db / 40)  # A
    middle = -2 * np.cos(angle)
    upper = np.stack([1 + width * height, middle, 1 - width * height], axis=1)  # b
    lower = np.stack([1 + width / height, middle, 1 - width / height], axis=1)  # a
    sections = np.concatenate([upper, lower], axis=1) / lower[:, :1]
    return np.asarray(sosfilt(sections, samples, axis=-1), dtype=np.float32)


def transpose(samples: Samples, semitones: float, sample_rate: int) -> Samples:
    """Shifts the pitch but not the timing (Signalsmith Stretch); float32, same shape."""
    from python_stretch import Signalsmith

    stretch = Signalsmith.Stretch()
    stretch.preset(len(samples), sample_rate)
    stretch.setTransposeSemitones(semitones)
    return np.asarray(stretch.process(np.ascontiguousarray(samples)), dtype=np.float32)
