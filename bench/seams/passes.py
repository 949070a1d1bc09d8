"""A song through an engine in one piece, and in chunks of any length and overlap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bsmamba2.config.model import AudioConfig
from bsmamba2.evaluation.metrics import GRAINS_PER_S
from bsmamba2.runtime.audio.samples import Samples
from bsmamba2.runtime.engines.base import Engine
from bsmamba2.runtime.engines.estimation import Batch, EngineEstimator
from bsmamba2.runtime.separation.chunking import Chunking

Curve = NDArray[np.float64]
"""(grains,): one value for each 20 ms of distance from a chunk's edge."""


@dataclass(frozen=True)
class Song:
    """A mixture whose voice is known, both (channels, n), at the engine's rate."""

    name: str
    mixture: Samples
    vocals: Samples


class Passes:
    """One engine's estimates of the voice."""

    def __init__(self, engine: Engine) -> None:
        """Takes an engine that accepts any number of frames."""
        self.audio = engine.metadata.model.audio
        self._estimator = EngineEstimator(engine)

    def samples(self, seconds: float) -> int:
        """Samples of a time."""
        return round(seconds * self.audio.sample_rate)

    def chunking(self, chunk_s: int, overlap_s: float) -> Chunking:
        """As `Separator` makes it, for a model of such chunks."""
        audio = replace(self.audio, chunk_s=chunk_s)
        return Chunking.of(audio, overlap_s)

    def whole(self, mixture: Samples) -> Samples:
        """The song in one piece: what no edge disturbs but the song's own."""
        return self._estimate(mixture, 0)

    def between(self, mixture: Samples) -> Samples:
        """The same with frames in the middle between those of `whole`."""
        late = self.audio.hop // 2
        return self._estimate(np.pad(mixture, ((0, 0), (late, 0))), 0)[:, late:]

    def chunks(self, mixture: Samples, chunking: Chunking) -> list[Samples]:
        """The engine's whole results of all chunks, contexts included."""
        cut = enumerate(chunking.split([mixture]))
        return [self._estimate(chunk, chunking.start(index)) for index, (chunk, _) in cut]

    def inner_chunks(
        self, mixture: Samples, chunk_s: int, step_s: float
    ) -> Iterator[tuple[int, Samples]]:
        """Results of chunks that lie inside the song, with their first samples.

        They begin at whole frames, so that they differ from the whole by what they hear alone.
        """
        size, hop = self.samples(chunk_s), self.audio.hop
        step = max(1, self.samples(step_s) // hop) * hop
        for start in range(0, mixture.shape[1] - size + 1, step):
            yield start, self._estimate(mixture[:, start : start + size], start)

    def _estimate(self, mixture: Samples, start: int) -> Samples:
        batch = Batch(np.ascontiguousarray(mixture)[None], (start,))
        return self._estimator.begin(batch).result()[0]


def joined(estimates: list[Samples], chunking: Chunking, total: int, fade: int) -> Samples:
    """The song, (channels, total), of what `Passes.chunks` gave, faded over so many samples."""
    faded = replace(chunking, fade=fade)
    counts = [min(chunking.step, total - k * chunking.step) for k in range(len(estimates))]
    return np.concatenate(list(faded.join(zip(estimates, counts, strict=True))), axis=1)


def seams(chunking: Chunking, total: int) -> list[int]:
    """The song's samples where one chunk's part ends and the next one's begins."""
    return list(range(chunking.step, total, chunking.step))


class EdgeErrors:
    """Energies against the distance from an edge inside a song, added up over chunks and songs."""

    def __init__(self, audio: AudioConfig, chunk_s: int) -> None:
        """Starts with nothing; distances go to the middle of a chunk, 20 ms at a time."""
        self._size = audio.sample_rate // GRAINS_PER_S
        self._grains = int(chunk_s * GRAINS_PER_S / 2)
        self._sums = np.zeros((5, self._grains))
        self.edges = 0

    def add(self, estimate: Samples, start: int, whole: Samples, vocals: Samples) -> None:
        """One chunk's estimate; `start` is its first sample in the whole song's two.

        An edge that is the song's own does not count.
        """
        stop = start + estimate.shape[1]
        w, s = whole[:, start:stop], vocals[:, start:stop]
        energies = np.stack(
            [self._energies(part) for part in (w, estimate - w, s, estimate - s, w - s)]
        )
        if start > 0:
            self._sums += energies[:, : self._grains]
            self.edges += 1
        if stop < whole.shape[1]:
            self._sums += energies[:, ::-1][:, : self._grains]
            self.edges += 1

    def curves_db(self) -> dict[str, Curve]:
        """Name -> (grains,) dB, from the edge inwards.

        departure: The chunk's estimate - the whole song's, against the whole song's.
        error, whole_error: Both estimates - the true voice, against the voice.
        """
        w, departure, s, error, whole_error = self._sums + 1e-12
        ratios = {"departure": departure / w, "error": error / s, "whole_error": whole_error / s}
        return {name: 10 * np.log10(ratio) for name, ratio in ratios.items()}

    def _energies(self, samples: Samples) -> Curve:
        whole = samples.shape[1] // self._size * self._size
        parts = samples[:, :whole].astype(np.float64).reshape(len(samples), -1, self._size)
        return np.square(parts).sum(axis=(0, 2))
