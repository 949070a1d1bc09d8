"""How a song is cut into the engine's chunks and put together again.

One rule for all: neighbouring chunks share `overlap` samples. With context = overlap / 2 and
step = size - overlap, chunk k covers the song's samples [k step - context, k step - context +
size), zeros where there is no song, and of the engine's result the `step` samples in the middle
are kept:

    song    |-------------------------------------------|
    k = 0  ..[======]..        .. context, discarded
    k = 1          ..[======]..      [==] kept
    k = 2                  ..[======]..

An overlap of 0 is the paper's way: chunks side by side, the last one padded with zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
"""(channels, n), full scale 1."""


@dataclass(frozen=True)
class Chunking:
    """Sizes of the rule above, in samples."""

    size: int
    """Length of a chunk."""
    overlap: int
    """Shared by two neighbours: even, at least 0, less than size."""

    def __post_init__(self) -> None:
        if self.overlap % 2 or not 0 <= self.overlap < self.size:
            raise ValueError(
                f"overlap must be even, at least 0 and less than {self.size}, not {self.overlap}."
            )

    @property
    def context(self) -> int:
        """Samples discarded on either side."""
        return self.overlap // 2

    @property
    def step(self) -> int:
        """Samples kept of a chunk, and the distance from one chunk to the next."""
        return self.size - self.overlap

    def start(self, index: int) -> int:
        """The song's sample that chunk `index` begins with; negative before the song."""
        return index * self.step - self.context

    def split(self, blocks: Iterable[Samples]) -> Iterator[tuple[Samples, int]]:
        """Chunks of a song that comes in blocks; holds one chunk at a time.

        Args:
            blocks: (channels, any n), one after another; at least one if there is a song.

        Yields:
            A chunk (channels, size), the receiver's own, and how many samples to keep of it:
            step, or less in the last one. Together they keep as many samples as there were.
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

    def keep(self, chunk: Samples, count: int) -> Samples:
        """The part of an engine's result that goes into the song: (channels, count)."""
        return chunk[:, self.context : self.context + count]
