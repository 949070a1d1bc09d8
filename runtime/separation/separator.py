"""A song in, its stems out: the steps from samples to the engine and back.

    mixture -> model's rate and channels -> chunks -> STFT -> engine -> mask product -> ISTFT
            -> kept middles -> input's rate and channels -> stem, mixture - stem

Each step is a generator over the one before, so that memory does not grow with the song. From
chunks to chunks is the estimator's part (`estimation.py`), which has several batches begun: while
the engine works on one, the caller's thread decodes the next one and has the last one's stems.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bsmamba2.errors import AudioError, EngineError, OptionError
from bsmamba2.runtime.audio.resampling import resample
from bsmamba2.runtime.audio.samples import Samples, check_samples
from bsmamba2.runtime.engines.base import Engine
from bsmamba2.runtime.engines.estimation import Batch, Chunks, estimator_of
from bsmamba2.runtime.engines.stage_times import StageTimes
from bsmamba2.runtime.separation.chunking import Chunking
from bsmamba2.runtime.separation.tta import with_tta
from bsmamba2.system.lanes import Pending, in_order

RESIDUAL = "instrumental"
"""Name of the stem that is left: mixture - target."""
DEFAULT_OVERLAP_S = 1.0
"""At which no test finds a seam, however it is faded: `docs/seams.md` has the measurement."""
_BLOCK = 1 << 16  # samples; longer blocks are cut, so that their resampled copies stay small


class Separator:
    """Separates songs with one engine; several threads may each separate one with it.

    A network's estimate is worst at the ends of its chunk, where it hears only one side. So
    neighbouring chunks overlap, and half of the overlap is discarded at either end of each
    (`chunking.py`; `docs/seams.md` says how much is needed). 0 is the paper's hard concatenation.

    Attributes:
        stems: Names of the results: the engine's target and RESIDUAL.
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
        """Takes an engine of any backend.

        Args:
            engine: From `load_engine`, or any `Engine`.
            overlap_s: Seconds that neighbouring chunks share, at least 0 and less than a chunk.
            batch: Chunks that the engine gets at a time.
            tta: Averages over what the engine says of the song with its channels swapped ("swap",
                twice the work), its polarity inverted ("polarity", twice), or both (four times).

        Raises:
            BsmError: An overlap, a batch or a mode that cannot be, or an engine for other chunks.
        """
        self._audio = engine.metadata.model.audio
        if not 0 <= overlap_s < self._audio.chunk_s:
            raise OptionError(
                f"An overlap of {overlap_s:g} s does not fit chunks of {self._audio.chunk_s} s: "
                "choose 0 or a few seconds."
            )
        if self._audio.target == RESIDUAL:
            raise EngineError(
                f"The engine's target must not be called '{RESIDUAL}' like what is left."
            )
        if batch < 1:
            raise OptionError(f"A batch of {batch} chunks is none: choose 1 or more.")
        self._chunking = Chunking.of(self._audio, overlap_s)
        self.step_s = self._chunking.step / self._audio.sample_rate
        self._batch = batch
        self._estimator = with_tta(estimator_of(engine, batch), tta)
        self.stems = (self._audio.target, RESIDUAL)

    def separate(self, mixture: ArrayLike, sample_rate: int) -> dict[str, NDArray[np.float32]]:
        """Separates a whole song.

        Args:
            mixture: (channels, n) or (n,), floats of full scale 1; is left as it is.
            sample_rate: Hz; the stems have it too.

        Returns:
            Stem name -> float32 array of the mixture's shape. Their sum is the mixture to the
            rounding of float32.

        Raises:
            AudioError: No samples, too many channels, NaN or Inf, no floats.
            EngineError: The engine failed or its mask is unusable.
        """
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
        """Separates a song that comes in blocks, holding a few chunks at a time.

        The engine works on a thread of its own while the caller has the stems: blocks are asked
        for some chunks ahead. Closing the generator ends that.

        Args:
            blocks: (channels, any n) floats of full scale 1, one after another.
            sample_rate: Hz; the stems have it too.
            channels: Of every block.
            times: Gets the seconds of "stft", "engine" and "istft".

        Returns:
            Blocks of stems, name -> (channels, n) float32; n is the engine's, not the input's,
            and adds up to as many samples as came in.

        Raises:
            AudioError: At once for the rate or channels; while iterating as in `separate`.
            EngineError: While iterating, as in `separate`.
        """
        if sample_rate != int(sample_rate) or sample_rate < 1:
            raise AudioError(f"A sample rate of {sample_rate} Hz is none: give whole Hz, above 0.")
        if channels not in (1, self._audio.channels):
            raise AudioError(
                f"The mixture has {channels} channels, but the model takes 1 or "
                f"{self._audio.channels}: mix it down first (arrays are (channels, n))."
            )
        return self._stream(blocks, int(sample_rate), channels, times or StageTimes())

    def close(self) -> None:
        """Ends all songs, from any thread: those who separate one get a CancelledError.

        Waits for what the engine is at, but not for ever.
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
            # Of two channels that were one, the mean.
            narrow = (b if repeats == 1 else b.mean(axis=0, keepdims=True) for b in target)
            # One sample more than rounding at both rates can take away; `take` drops the rest.
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
        """The target stem at the model's rate, from the mixture at the model's rate."""
        counts: deque[int] = deque()  # samples to keep of the chunks that are on their way
        begun = self._begun(self._chunking.split(blocks), counts, times)
        with contextlib.closing(in_order(begun, self._estimator.in_flight)) as estimates:
            results = ((one, counts.popleft()) for batch in estimates for one in batch)
            yield from self._chunking.join(results)

    def _begun(
        self, chunks: Iterator[tuple[Samples, int]], counts: deque[int], times: StageTimes
    ) -> Iterator[Pending[Chunks]]:
        """Begins one batch after another; notes how many samples to keep of each chunk."""
        first = 0
        while group := list(itertools.islice(chunks, self._batch)):
            starts = tuple(self._chunking.start(first + i) for i in range(len(group)))
            counts.extend(count for _, count in group)
            first += len(group)
            yield self._estimator.begin(Batch(np.stack([one for one, _ in group]), starts, times))


class Waiting:
    """The mixture's samples whose stems are not there yet."""

    def __init__(self, channels: int) -> None:
        self._blocks: deque[Samples] = deque()
        self._nothing = np.zeros((channels, 0), np.float32)

    def tap(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Passes blocks on and remembers them."""
        for block in blocks:
            self._blocks.append(block)
            yield block

    def take(self, count: int) -> Samples:
        """The next `count` samples, or as many as there are: (channels, n)."""
        parts = [self._nothing]
        while count and self._blocks:
            block = self._blocks.popleft()
            if block.shape[1] > count:
                self._blocks.appendleft(block[:, count:])
            parts.append(block[:, :count])
            count -= parts[-1].shape[1]
        return np.concatenate(parts, axis=1)


def _checked(blocks: Iterable[NDArray[np.floating]], rate: int, channels: int) -> Iterator[Samples]:
    """Short float32 blocks; raises AudioError for what is no song."""
    done = 0
    for block in blocks:
        if block.ndim != 2 or block.shape[0] != channels or block.dtype.kind != "f":
            raise AudioError(
                f"Blocks must be floats of shape ({channels}, n), "
                f"not {block.dtype} of shape {block.shape}."
            )
        for start in range(0, block.shape[1], _BLOCK):
            with np.errstate(over="ignore"):  # to Inf, which is refused below
                piece = block[:, start : start + _BLOCK].astype(np.float32)  # a copy: it must wait
            check_samples(piece, done, rate, "The mixture")
            done += piece.shape[1]
            yield piece
    if not done:
        raise AudioError("The mixture has no samples: give at least one.")
