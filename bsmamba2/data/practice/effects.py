"""Studio effects: equaliser, compressor, reverb, echo, saturation, limiter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter1d, uniform_filter1d
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

from bsmamba2.data.practice.instruments import SAMPLE_RATE, Audio

_EQ_HZ = (30, 100, 250, 600, 1500, 3500, 8000, 16_000)
FLAT_DB = (0.0,) * len(_EQ_HZ)
PRESENCE_DB = (0.0, -2.0, -6.0, 0.0, 4.0, 4.0, 6.0, 4.0)
"""Mean equaliser gains for voices, which are made from speech."""
BRIGHT_DB = (0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 6.0, 8.0)
"""Mean equaliser gains for the sampled instruments in `other`."""


def rms(audio: Audio) -> float:
    """Returns the root mean square, never 0."""
    return float(np.sqrt(np.mean(audio**2) + 1e-12))


def equalise(
    audio: Audio,
    rng: np.random.Generator,
    spread_db: float = 2.5,
    mean_db: tuple[float, ...] = FLAT_DB,
) -> Audio:
    """Applies a smooth curve through random gains at eight frequencies (normal distribution)."""
    hz = np.fft.rfftfreq(audio.shape[1], 1 / SAMPLE_RATE) + 1
    gains_db = np.interp(np.log(hz), np.log(_EQ_HZ), rng.normal(mean_db, spread_db))
    result: Audio = np.fft.irfft(np.fft.rfft(audio) * 10 ** (gains_db / 20), audio.shape[1])
    return result


def high_pass(audio: Audio, hz: float) -> Audio:
    """Applies a second-order Butterworth high-pass filter."""
    return np.asarray(sosfilt(butter(2, hz, "high", fs=SAMPLE_RATE, output="sos"), audio))


def compress(audio: Audio, threshold: float, ratio: float) -> Audio:
    """Compresses (feed-forward, 20 ms, all channels alike); `threshold` is an RMS level."""
    level = np.sqrt(lfilter([0.001], [1, -0.999], np.mean(audio**2, axis=0)) + 1e-9)
    return audio * np.minimum(1.0, (level / threshold) ** (1 / ratio - 1))


def reverberate(audio: Audio, rng: np.random.Generator, wet: float, decay_s: float) -> Audio:
    """Adds a stereo reverb: delayed noise that decays by 60 dB within `decay_s`."""
    length = round(1.2 * decay_s * SAMPLE_RATE)
    decay = np.exp(-6.9 * np.arange(length) / (decay_s * SAMPLE_RATE))
    room = rng.normal(0, 1, (2, length)) * decay
    room[:, : round(rng.uniform(0.005, 0.04) * SAMPLE_RATE)] = 0
    band = butter(1, [200, rng.uniform(3000, 9000)], "band", fs=SAMPLE_RATE, output="sos")
    room = np.asarray(sosfilt(band, room))
    room /= np.sqrt((room**2).sum(axis=1, keepdims=True))
    return audio + wet * np.asarray(fftconvolve(audio, room, axes=1))[:, : audio.shape[1]]


def echo(audio: Audio, delay_s: float, gain: float) -> Audio:
    """Adds three repeats on alternating sides, each `gain` times the one before."""
    result = audio.copy()
    for repeat in (1, 2, 3):
        delay = repeat * round(delay_s * SAMPLE_RATE)
        if 0 < delay < audio.shape[1]:
            result[repeat % 2, delay:] += gain**repeat * audio[repeat % 2, :-delay]
    return result


def saturate(audio: Audio, drive: float) -> Audio:
    """Scales the peak to `drive`, then applies tanh."""
    return np.tanh(audio * drive / (np.abs(audio).max() + 1e-6))


def limiter_gain(audio: Audio, ceiling: float) -> NDArray[np.float64]:
    """Returns gains (samples,) <= 1, smoothed over 10 ms, that keep channels below `ceiling`."""
    needed = np.minimum(1.0, ceiling / np.maximum(np.abs(audio).max(axis=0), 1e-9))
    window = round(0.01 * SAMPLE_RATE)
    return np.asarray(uniform_filter1d(minimum_filter1d(needed, window), window))
