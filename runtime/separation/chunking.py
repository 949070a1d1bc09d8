"""How a song is cut into the engine's chunks and put together again.

One rule for all: neighbouring chunks share `overlap` samples. With context = overlap / 2 and
step = size - overlap, chunk k covers the song's samples [k step - context, k step - context +
size), zeros where there is no song, and of the engine's result the `step` samples in the middle
are kept:

    song    |-------------------------------------------|
    k = 0  ..[======]..        .. context, discarded
    k = 1          ..[======]..      [==] kept
    k = 2                  ..[======]..

Over the first `fade` samples of its middle a result rises from what the chunk before it says of
the same samples, so that no step is left at the seam (measured in `docs/seams.md`). An overlap of
0 is the paper's way: chunks side by side, the last one padded with zeros, nothing to fade from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from bsmamba2.config.model import AudioConfig
from bsmamba2.runtime.audio.samples import Samples

FADE_S = 0.05
"""Over which one chunk's result passes into the next one's."""


@dataclass(frozen=True)
class Chunking:
    """Sizes of the rule above, in samples."""

    size: int
    """Length of a chunk."""
    overlap: int
    """Shared by two neighbours: even, at least 0, less than size."""
    fade: int = 0
    """Over which one result passes into the next: at least 0, at most context and step."""

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
        """The model's chunks, with contexts of whole frames up to half of `overlap_s` seconds.

        Whole frames, so that all chunks of a song see the frames that one pass would: the same
        sound between two frames can give an estimate as different as at an edge (`docs/seams.md`).
        """
        context = int(overlap_s * audio.sample_rate / 2) // audio.hop * audio.hop
        step = audio.chunk_samples - 2 * context
        fade = min(int(FADE_S * audio.sample_rate), context, step)
        return cls(audio.chunk_samples, 2 * context, fade)

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

    def join(self, estimates: Iterable[tuple[Samples, int]]) -> Iterator[Samples]:
        """The song from an engine's results; holds one fade of the last one.

        Args:
            estimates: Results (channels, size) in order, with the counts of `split`; are read
                before the next one is asked for, and left as they are.

        Yields:
            (channels, count) of each.
        """
        rise = ((np.arange(self.fade) + 0.5) / max(1, self.fade)).astype(np.float32)
        before: Samples | None = None
        for estimate, count in estimates:
            kept = estimate[:, self.context : self.context + count]
            if before is not None and self.fade:
                kept, n = kept.copy(), min(self.fade, count)
                # Of two equal results exactly theirs, which a weighted sum need not be.
                kept[:, :n] = before[:, :n] + rise[:n] * (kept[:, :n] - before[:, :n])
            end = self.context + self.step
            before = estimate[:, end : end + self.fade].copy()
            yield kept
