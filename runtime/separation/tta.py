"""Test-time augmentation: averages the estimates of several variants of a chunk.

A voice stays the same when the channels are swapped or the polarity is inverted, but a network's
estimate changes a little. Averaging over these variants, each undone first, reduces that
error. Each variant costs one more run of the engine.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bsmamba2.errors import OptionError
from bsmamba2.runtime.engines.estimation import Batch, Chunks, EngineEstimator, SharedEstimator
from bsmamba2.system.lanes import Pending

Closable = EngineEstimator | SharedEstimator

TTA_MODES = {"swap": ("swap",), "polarity": ("polarity",), "both": ("swap", "polarity")}
"""Mode -> what is varied; varying n properties multiplies the engine's time by 2^n."""


def with_tta(estimator: Closable, mode: str | None) -> Closable | AveragingEstimator:
    """Wraps the estimator in an averaging one if there is a mode; raises BsmError if unknown."""
    if mode is None:
        return estimator
    if mode not in TTA_MODES:
        raise OptionError(
            f"Unknown test-time augmentation '{mode}': choose {', '.join(TTA_MODES)}."
        )
    return AveragingEstimator(estimator, TTA_MODES[mode])


class AveragingEstimator:
    """An `Estimator` that averages the estimates of another one over variants of each batch."""

    def __init__(self, estimator: Closable, varied: Sequence[str]) -> None:
        """Varies 'swap' (of the two channels), 'polarity', or both in all combinations."""
        choices = [(False, True) if name in varied else (False,) for name in ("swap", "polarity")]
        self._variants = [
            functools.partial(_variant, swap, polarity)
            for swap, polarity in itertools.product(*choices)
        ]
        self._estimator = estimator
        # Each batch is several runs of `estimator`: as many batches as reach its in_flight, and
        # at least two if that is more than 1.
        self.in_flight = 1 + -(-(estimator.in_flight - 1) // len(self._variants))

    def begin(self, batch: Batch) -> _Averaged:
        """Begins every variant of the batch; see `Estimator`."""
        parts: list[tuple[Callable[[Chunks], Chunks], Pending[Chunks]]] = []
        try:
            for variant in self._variants:
                changed = dataclasses.replace(batch, chunks=variant(batch.chunks))
                parts.append((variant, self._estimator.begin(changed)))
        except BaseException:
            _Averaged(parts).cancel()
            raise
        return _Averaged(parts)

    def close(self) -> None:
        """Cancels all batches, from any thread."""
        self._estimator.close()


def _variant(swap: bool, polarity: bool, chunks: Chunks) -> Chunks:
    """A variant of chunks (batch, channels, n); applied twice, it restores them."""
    if swap:
        chunks = np.ascontiguousarray(chunks[:, ::-1])
    return -chunks if polarity else chunks


@dataclass(frozen=True, eq=False)
class _Averaged:
    """A batch in all of its variants."""

    parts: Sequence[tuple[Callable[[Chunks], Chunks], Pending[Chunks]]]

    def result(self) -> Chunks:
        """Returns the mean over the variants; see `Pending`."""
        first, *others = (variant(pending.result()) for variant, pending in self.parts)
        return sum(others, first) / np.float32(len(self.parts))

    def cancel(self) -> None:
        """See `Pending`."""
        for _, pending in reversed(self.parts):  # the running one last, so that no other starts
            pending.cancel()
