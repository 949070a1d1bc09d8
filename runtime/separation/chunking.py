"""Cuts a song into the engine's chunks and joins the estimates again.

Neighbouring chunks share `overlap` samples. With context = overlap / 2 and step = size - overlap,
chunk k covers the song's samples [k step - context, k step - context + size), padded with zeros
before and after the song. Only the middle `step` samples of each estimate are kept:

    song    |-------------------------------------------|
    k = 0  ..[======]..        .. context, discarded
    k = 1          ..[======]..      [==] kept
    k = 2                  ..[======]..

Over the first `fade` samples of its middle, an estimate is crossfaded with the previous chunk's
estimate of the same samples, so that the seam has no step (measured in `docs/seams.md`). An
overlap of 0 is the paper's method: chunks side by side, the last one padded with zeros, no fade.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from bsmamba2.config.model import AudioConfig
from bsmamba2.runtime.audio.samples import Samples

FADE_S = 0.05
"""Length of the crossfade from one chunk's estimate to the next, in seconds."""


@dataclass(frozen=True)
class Chunking:
    """Chunk, overlap and crossfade in samples, as described above."""

    size: int
    """Length of a chunk."""
    overlap: int
    """Samples shared by two neighbouring chunks: even, at least 0, less than size."""
    fade: int = 0
    """Length of the crossfade: at least 0, at most context and step."""

    def __post_init__(self) -> None:
        if self.overlap % 2 or not 0 <= self.overlap < self.size:
            raise ValueError(
                f"overlap must be even, at least 0 and less than {self.size}, not {self.overlap}."
            )
        if not 0 <= self.fade <= min(self.context, self.step):
            raise ValueError(
                f"fade must be at least 0 and at most {min(self.context, self.step)}, "
                f"not {self.fade}."
            )

    @classmethod
    def of(cls, audio: AudioConfig, overlap_s: float) -> Chunking:
        """Returns chunks of the model's length, with a context of `overlap_s` / 2 in whole hops.

        The context is rounded down, so that the frames of all chunks lie where those of a single
        pass would: a shift by part of a hop can change the estimate as much as an edge does
        (`docs/seams.md`).
        """
        context = int(overlap_s * audio.sample_rate / 2) // audio.hop * audio.hop
        step = audio.chunk_samples - 2 * context
        fade = min(int(FADE_S * audio.sample_rate), context, step)
        return cls(audio.chunk_samples, 2 * context, fade)

    @property
    def context(self) -> int:
        """Samples discarded at either end of a chunk."""
        return self.overlap // 2

    @property
    def step(self) -> int:
        """Samples kept of each chunk, and the distance from one chunk to the next."""
        return self.size - self.overlap

    def start(self, index: int) -> int:
        """Position in the song at which chunk `index` begins, in samples; may be negative."""
        return index * self.step - self.context

    def split(self, blocks: Iterable[Samples]) -> Iterator[tuple[Samples, int]]:
        """Cuts a song that comes in blocks into chunks; holds one chunk at a time.

        Args:
            blocks: Consecutive blocks (channels, any n).

        Yields:
            A chunk (channels, size), which the caller may modify, and the number of samples to
            keep of it: step, or fewer in the last one. They add up to the length of the song.
        """
        chunk, filled, done, total = None, self.context, 0, 0
        for block in blocks:
            if chunk is None:
                chunk = np.zeros((block.shape[0], self.size), np.float32)
            total += block.shape[1]
            while block.shape[1]:
                taken = min(self.size - filled, block.shape[1])
                chunk[:, filled : filled + taken] = block[:, :taken]
                block, filled = block[:, taken:], filled + taken
                if filled == self.size:
                    yield chunk.copy(), self.step
                    chunk[:, : self.overlap] = chunk[:, self.step :]
                    filled, done = self.overlap, done + self.step
        while chunk is not None and done < total:
            chunk[:, filled:] = 0
            yield chunk.copy(), min(self.step, total - done)
            chunk[:, : self.overlap] = chunk[:, self.step :]
            filled, done = self.overlap, done + self.step

    def join(self, estimates: Iterable[tuple[Samples, int]]) -> Iterator[Samples]:
        """Joins the engine's estimates; holds one crossfade of the previous one.

        Args:
            estimates: Estimates (channels, size) in order, with the counts of `split`. They are
                not modified, and none is used after the next one has been requested.

        Yields:
            The kept samples of each estimate, (channels, count).
        """
        rise = ((np.arange(self.fade) + 0.5) / max(1, self.fade)).astype(np.float32)
        before: Samples | None = None
        for estimate, count in estimates:
            kept = estimate[:, self.context : self.context + count]
            if before is not None and self.fade:
                kept, n = kept.copy(), min(self.fade, count)
                # Exact where both are equal, unlike a weighted sum.
                kept[:, :n] = before[:, :n] + rise[:n] * (kept[:, :n] - before[:, :n])
            end = self.context + self.step
            before = estimate[:, end : end + self.fade].copy()
            yield kept
