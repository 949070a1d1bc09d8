"""The `Separator`, which turns the samples of a song into those of its stems.

    mixture -> model's rate and channels -> chunks -> STFT -> engine -> mask product -> ISTFT
            -> kept middles -> input's rate and channels -> stem, mixture - stem

Each step is a generator over the previous one, so that memory does not grow with the song. The
steps from STFT to ISTFT are the estimator's (`estimation.py`). It keeps several batches in flight:
while the engine computes one, the caller's thread decodes the next and consumes the last.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from os import PathLike

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bsmamba2.errors import AudioError, EngineError, OptionError
from bsmamba2.runtime.audio.resampling import resample
from bsmamba2.runtime.audio.samples import Samples, check_samples
from bsmamba2.runtime.engines.base import Engine, Unpicklable
from bsmamba2.runtime.engines.estimation import Batch, Chunks, estimator_of
from bsmamba2.runtime.engines.stage_times import StageTimes
from bsmamba2.runtime.separation.chunking import Chunking
from bsmamba2.runtime.separation.tta import with_tta
from bsmamba2.system.lanes import Pending, in_order

RESIDUAL = "instrumental"
"""Name of the residual stem: mixture - target."""
DEFAULT_OVERLAP_S = 1.0
"""Overlap at which no test finds a crossfaded seam (`docs/seams.md`)."""
_BLOCK = 1 << 16  # samples; longer blocks are cut to keep their resampled copies small


class Separator(Unpicklable):
    """Separates songs with one engine; several threads may use it at once, each for its own song.

    The engine works on chunks of a few seconds. Its estimate is worst at the ends of a chunk,
    where context is missing on one side. So neighbouring chunks overlap, and half of the overlap
    is discarded at either end of each (`chunking.py`; `docs/seams.md` shows how much is needed).

    Attributes:
        stems: Names of the two stems: the engine's target ("vocals") and "instrumental".
        step_s: Seconds from one chunk to the next.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        overlap_s: float = DEFAULT_OVERLAP_S,
        batch: int = 1,
        tta: str | None = None,
    ) -> None:
        """Prepares an engine of any backend for separating songs.

        Args:
            engine: An engine from `load_engine`, or any object with the interface of `Engine`.
            overlap_s: Seconds shared by neighbouring chunks: at least 0, less than a chunk. With 0
                chunks are simply concatenated, as in the paper.
            batch: Number of chunks that the engine gets at a time.
            tta: Test-time augmentation: averages the engine's estimates of the song as it is and
                with swapped channels ("swap": takes twice as long), with inverted polarity
                ("polarity": twice), or with every combination ("both": four times).

        Raises:
            BsmError: An invalid overlap, batch or mode, or an engine that cannot take the model's
                chunks.
        """
        if isinstance(engine, str | PathLike):
            raise TypeError(f"{engine!r} is not an engine: pass load_engine({str(engine)!r}).")
        self._audio = engine.metadata.model.audio
        if not 0 <= overlap_s < self._audio.chunk_s:
            raise OptionError(
                f"An overlap of {overlap_s:g} s does not fit chunks of {self._audio.chunk_s} s: "
                f"choose at least 0 and less than {self._audio.chunk_s} s."
            )
        if self._audio.target == RESIDUAL:
            raise EngineError(
                f"The engine's target must not be called '{RESIDUAL}', the residual's name."
            )
        if batch < 1:
            raise OptionError(f"The batch must be at least 1 chunk, not {batch}.")
        self._chunking = Chunking.of(self._audio, overlap_s)
        self.step_s = self._chunking.step / self._audio.sample_rate
        self._batch = batch
        self._estimator = with_tta(estimator_of(engine, batch), tta)
        self.stems = (self._audio.target, RESIDUAL)

    def separate(self, mixture: ArrayLike, sample_rate: int) -> dict[str, NDArray[np.float32]]:
        """Separates a song that is in memory.

        Args:
            mixture: Floats (channels, n) or (n,), mono or stereo, full scale 1; not modified.
            sample_rate: Sample rate of the mixture and of the stems, in Hz. Mixtures of other
                rates than the model's are resampled, and their stems are resampled back.

        Returns:
            A dictionary: stem name -> float32 array of the mixture's shape. The stems add up to
            the mixture within float32 rounding.

        Raises:
            AudioError: The mixture is empty, has too many channels, is not of floats, or contains
                NaN or Inf.
            EngineError: The engine failed, or its mask is unusable.
        """
        if isinstance(mixture, str | PathLike):
            raise AudioError(
                f"A mixture is an array, not the file name '{mixture}': read it first."
            )
        given = np.asarray(mixture)
        if given.ndim not in (1, 2):
            raise AudioError(f"A mixture must have shape (channels, n) or (n,), not {given.shape}.")
        samples = np.atleast_2d(given)
        stems = {name: np.empty(samples.shape, np.float32) for name in self.stems}
        done = 0
        for block in self.stream([samples], sample_rate, samples.shape[0]):
            stop = done + next(iter(block.values())).shape[1]
            for name, values in block.items():
                stems[name][:, done:stop] = values
            done = stop
        return {name: values.reshape(given.shape) for name, values in stems.items()}

    def stream(
        self,
        blocks: Iterable[NDArray[np.floating]],
        sample_rate: int,
        channels: int,
        times: StageTimes | None = None,
    ) -> Generator[dict[str, Samples]]:
        """Separates a song that comes in blocks, in constant memory.

        The engine runs on its own thread while the caller handles the stems, so blocks are read a
        few chunks ahead. Closing the generator stops it.

        Args:
            blocks: Consecutive blocks of floats (channels, any n), full scale 1.
            sample_rate: Sample rate of the mixture and of the stems, in Hz.
            channels: Number of channels of every block, 1 or 2.
            times: Records the seconds spent in "stft", "engine" and "istft".

        Returns:
            A generator of dictionaries: stem name -> float32 block (channels, n). The blocks are
            cut differently from the input's, but have as many samples in all.

        Raises:
            AudioError: At once for an invalid sample rate or number of channels; while iterating
                as in `separate`.
            EngineError: While iterating, as in `separate`.
        """
        if sample_rate != int(sample_rate) or sample_rate < 1:
            raise AudioError(
                f"The sample rate must be a whole number of Hz above 0, not {sample_rate}."
            )
        if channels not in (1, self._audio.channels):
            raise AudioError(
                f"The mixture has {channels} channels, but the model takes 1 or "
                f"{self._audio.channels}: mix it down first (arrays are (channels, n))."
            )
        return self._stream(blocks, int(sample_rate), channels, times or StageTimes())

    def close(self) -> None:
        """Cancels all songs, from any thread; calls that separate one raise CancelledError.

        Waits a few seconds for the engine's current batch. The separator cannot be used any more.
        """
        self._estimator.close()

    def _stream(
        self,
        blocks: Iterable[NDArray[np.floating]],
        rate: int,
        channels: int,
        times: StageTimes,
    ) -> Generator[dict[str, Samples]]:
        waiting = Waiting(channels)
        mixture = waiting.tap(_checked(blocks, rate, channels))
        there = resample(
            mixture, channels=channels, from_rate=rate, to_rate=self._audio.sample_rate
        )
        repeats = self._audio.channels // channels
        wide = (np.repeat(block, repeats, axis=0) for block in there)
        with contextlib.closing(self._targets(wide, times)) as target:
            # A mono song was given to the engine on both channels: its stem is their mean.
            narrow = (b if repeats == 1 else b.mean(axis=0, keepdims=True) for b in target)
            # Rounding at both rates can lose a sample: append one; `take` drops what is too much.
            longer = itertools.chain(narrow, [np.zeros((channels, 1), np.float32)])
            back = resample(
                longer, channels=channels, from_rate=self._audio.sample_rate, to_rate=rate
            )
            for block in back:
                part = waiting.take(block.shape[1])
                if part.shape[1]:
                    stem = block[:, : part.shape[1]]
                    yield {self._audio.target: stem, RESIDUAL: part - stem}

    def _targets(self, blocks: Iterable[Samples], times: StageTimes) -> Generator[Samples]:
        """Yields the target stem of a mixture, both at the model's sample rate."""
        counts: deque[int] = deque()  # samples to keep of the chunks in flight
        begun = self._begun(self._chunking.split(blocks), counts, times)
        with contextlib.closing(in_order(begun, self._estimator.in_flight)) as estimates:
            results = ((one, counts.popleft()) for batch in estimates for one in batch)
            yield from self._chunking.join(results)

    def _begun(
        self, chunks: Iterator[tuple[Samples, int]], counts: deque[int], times: StageTimes
    ) -> Iterator[Pending[Chunks]]:
        """Begins one batch after another; appends the samples to keep of each chunk to `counts`."""
        first = 0
        while group := list(itertools.islice(chunks, self._batch)):
            starts = tuple(self._chunking.start(first + i) for i in range(len(group)))
            counts.extend(count for _, count in group)
            first += len(group)
            yield self._estimator.begin(Batch(np.stack([one for one, _ in group]), starts, times))


class Waiting:
    """A queue of the mixture's samples whose stems are not computed yet."""

    def __init__(self, channels: int) -> None:
        self._blocks: deque[Samples] = deque()
        self._nothing = np.zeros((channels, 0), np.float32)

    def tap(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Passes blocks on and queues them."""
        for block in blocks:
            self._blocks.append(block)
            yield block

    def take(self, count: int) -> Samples:
        """Removes and returns the next `count` samples, or as many as are left: (channels, n)."""
        parts = [self._nothing]
        while count and self._blocks:
            block = self._blocks.popleft()
            if block.shape[1] > count:
                self._blocks.appendleft(block[:, count:])
            parts.append(block[:, :count])
            count -= parts[-1].shape[1]
        return np.concatenate(parts, axis=1)


def _checked(blocks: Iterable[NDArray[np.floating]], rate: int, channels: int) -> Iterator[Samples]:
    """Yields the song in short float32 blocks; raises AudioError for invalid blocks or samples."""
    done = 0
    for block in blocks:
        if block.ndim != 2 or block.shape[0] != channels or block.dtype.kind != "f":
            raise AudioError(
                f"Blocks must be floats of shape ({channels}, n), "
                f"not {block.dtype} of shape {block.shape}."
            )
        for start in range(0, block.shape[1], _BLOCK):
            with np.errstate(over="ignore"):  # to Inf, which check_samples refuses
                piece = block[:, start : start + _BLOCK].astype(np.float32)  # a copy, as it is kept
            check_samples(piece, done, rate, "The mixture")
            done += piece.shape[1]
            yield piece
    if not done:
        raise AudioError("The mixture has no samples: give at least one.")
