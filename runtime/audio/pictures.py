"""Draws spectrograms of songs that come in blocks, as small PNG files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft

from bsmamba2.runtime.audio.samples import Samples

Picture = NDArray[np.uint8]
"""(rows from high to low frequency, columns): 0 for BOTTOM_DBFS to LEVELS - 1 for TOP_DBFS."""

ROWS, COLUMNS = 160, 760
LOWEST_HZ, HIGHEST_HZ = 50.0, 16_000.0
BOTTOM_DBFS, TOP_DBFS = -90.0, -15.0
LEVELS = 64  # fewer than 256 make smaller files
_N_FFT = 4096
_HOP = 1024
_WINDOW = (0.5 - 0.5 * np.cos(2 * np.pi / _N_FFT * np.arange(_N_FFT))).astype(np.float32)
_BLOCK = 1 << 16  # samples
_LINE = 2  # rows between two spectrograms
_COLOURS = (
    (0, 0, 4),
    (60, 15, 112),
    (140, 41, 129),
    (222, 73, 104),
    (254, 159, 109),
    (252, 253, 191),
)
"""Colours from the lowest to the highest level, in even steps of lightness."""


class Spectrogram:
    """Levels over time and logarithmic frequency, of the mean of a signal's channels.

    The length need not be known: whenever 2 * COLUMNS columns are full, neighbours are merged.
    """

    def __init__(self, sample_rate: int) -> None:
        """Starts an empty spectrogram; `sample_rate` in Hz."""
        edges_hz = np.geomspace(LOWEST_HZ, min(HIGHEST_HZ, sample_rate / 2), ROWS + 1)
        bins = np.minimum(edges_hz * _N_FFT / sample_rate, _N_FFT // 2).astype(int)
        self._first_bins = bins[:-1]
        self._rest = np.zeros(_N_FFT // 2, np.float32)  # samples from the next frame on
        self._power = np.zeros((2 * COLUMNS, ROWS))  # sums over the frames of each column
        self._frames, self._per_column = 0, 1

    def add(self, samples: Samples) -> None:
        """Appends samples (channels, n)."""
        mono = samples.mean(axis=0, dtype=np.float32)
        for start in range(0, mono.size, _BLOCK):
            self._rest = np.concatenate([self._rest, mono[start : start + _BLOCK]])
            if self._rest.size >= _N_FFT:
                self._add_frames(self._rest)
                taken = (self._rest.size - _N_FFT) // _HOP + 1
                self._rest = self._rest[taken * _HOP :]

    def picture(self) -> Picture:
        """Returns the spectrogram, (ROWS, COLUMNS); nothing can be added afterwards."""
        self._add_frames(np.pad(self._rest, (0, _N_FFT // 2)))
        count = -(-self._frames // self._per_column)
        power = self._power[:count] / self._per_column
        power[-1] *= self._per_column / ((self._frames - 1) % self._per_column + 1)
        level = 10 * np.log10(np.maximum(_stretched(power), 1e-12)).T[::-1]
        share = np.clip((level - BOTTOM_DBFS) / (TOP_DBFS - BOTTOM_DBFS), 0, 1)
        return np.round(share * (LEVELS - 1)).astype(np.uint8)

    def _add_frames(self, samples: NDArray[np.float32]) -> None:
        """Adds all whole frames in samples (n,), the first one at sample 0."""
        frames = np.lib.stride_tricks.sliding_window_view(samples, _N_FFT)[::_HOP]
        amplitude = np.abs(rfft(frames * _WINDOW)) * (4 / _N_FFT)  # Hann's mean is 1/2
        for row in np.maximum.reduceat(amplitude, self._first_bins, axis=1).astype(float) ** 2:
            column = self._frames // self._per_column
            if column == len(self._power):
                self._power[:COLUMNS] = self._power[::2] + self._power[1::2]
                self._power[COLUMNS:] = 0
                self._per_column *= 2
                column = COLUMNS
            self._power[column] += row
            self._frames += 1


def _stretched(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Resizes (columns, ROWS) to (COLUMNS, ROWS), by averaging or repeating columns."""
    edges = np.linspace(0, len(power), COLUMNS + 1)
    first = np.minimum(edges[:-1].astype(int), len(power) - 1)
    last = np.maximum(np.ceil(edges[1:]).astype(int), first + 1)
    sums = np.concatenate([np.zeros((1, ROWS)), np.cumsum(power, axis=0)])
    return np.maximum(0, sums[last] - sums[first]) / (last - first)[:, None]


def draw_spectrogram(samples: Samples, sample_rate: int) -> Picture:
    """Draws the `Spectrogram` of a whole signal.

    Args:
        samples: (channels, n).
        sample_rate: Hz.
    """
    spectrogram = Spectrogram(sample_rate)
    spectrogram.add(samples)
    return spectrogram.picture()


class SongPicture:
    """Draws the spectrograms of a mixture and its stems, one below the other, as a PNG file."""

    def __init__(self, sample_rate: int) -> None:
        """Starts an empty picture; `sample_rate` in Hz."""
        self._sample_rate = sample_rate
        self._signals: dict[str, Spectrogram] = {}

    def add(self, signals: Mapping[str, Samples]) -> None:
        """Appends a block of each signal: name -> samples (channels, n), full scale 1."""
        for name, samples in signals.items():
            if name not in self._signals:
                self._signals[name] = Spectrogram(self._sample_rate)
            self._signals[name].add(samples)

    def png(self) -> bytes:
        """Returns the PNG file, with a description of what it shows; call it once, at the end."""
        line = np.full((_LINE, COLUMNS), LEVELS - 1, np.uint8)
        parts = [part for one in self._signals.values() for part in (line, one.picture())]
        highest_hz = min(HIGHEST_HZ, self._sample_rate / 2)
        text = (
            f"{', '.join(self._signals)} from top to bottom; {LOWEST_HZ:g} to {highest_hz:g} Hz, "
            f"logarithmic; {BOTTOM_DBFS:g} to {TOP_DBFS:g} dBFS"
        )
        return png(np.concatenate(parts[1:]), text)


def png(picture: Picture, text: str = "") -> bytes:
    """Encodes a picture in colours, with a description, as a PNG file."""
    rows, columns = picture.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), picture], axis=1)  # 0: no filter
    at = np.linspace(0, len(_COLOURS) - 1, LEVELS)
    palette = [
        np.interp(at, range(len(_COLOURS)), channel) for channel in zip(*_COLOURS, strict=True)
    ]
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),  # 8 bits, palette
        (b"PLTE", np.round(np.stack(palette, axis=1)).astype(np.uint8).tobytes()),
        (b"tEXt", b"Description\0" + text.encode("latin-1", "replace")),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    )
    file = b"\x89PNG\r\n\x1a\n"
    for kind, data in parts:
        file += struct.pack(">I", len(data)) + kind + data
        file += struct.pack(">I", zlib.crc32(kind + data))
    return file
