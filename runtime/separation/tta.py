"""Test-time augmentation: estimates of a chunk in several guises, turned back and averaged.

A network is not quite indifferent to which channel is left and to a signal's sign, though the
voice is; the mean of its answers has less of what is chance. Each guise costs one more run of the
engine.
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
"""Name -> what is varied; with n of them the engine works 2^n times as long."""


def with_tta(estimator: Closable, mode: str | None) -> Closable | AveragingEstimator:
    """The estimator, or one that averages over its answers; raises BsmError for unknown modes."""
    if mode is None:
        return estimator
    if mode not in TTA_MODES:
        raise OptionError(
            f"Unknown test-time augmentation '{mode}': choose {', '.join(TTA_MODES)}."
        )
    return AveragingEstimator(estimator, TTA_MODES[mode])


class AveragingEstimator:
    """An `Estimator` over another one, of any engine."""

    def __init__(self, estimator: Closable, varied: Sequence[str]) -> None:
        """Varies 'swap' (the two channels) and 'polarity', and both together."""
        choices = [(False, True) if name in varied else (False,) for name in ("swap", "polarity")]
        self._guises = [
            functools.partial(_guise, swap, polarity)
            for swap, polarity in itertools.product(*choices)
        ]
        self._estimator = estimator
        # As many runs as the other wants to have begun, but where it wants several, two batches.
        self.in_flight = 1 + -(-(estimator.in_flight - 1) // len(self._guises))

    def begin(self, batch: Batch) -> _Averaged:
        """Begins the batch in every guise; see `Estimator`."""
        parts: list[tuple[Callable[[Chunks], Chunks], Pending[Chunks]]] = []
        try:
            for guise in self._guises:
                changed = dataclasses.replace(batch, chunks=guise(batch.chunks))
                parts.append((guise, self._estimator.begin(changed)))
        except BaseException:
            _Averaged(parts).cancel()
            raise
        return _Averaged(parts)

    def close(self) -> None:
        """Ends all that was begun, from any thread."""
        self._estimator.close()


def _guise(swap: bool, polarity: bool, chunks: Chunks) -> Chunks:
    """Chunks (batch, channels, n) in a guise; done twice, as they were."""
    if swap:
        chunks = np.ascontiguousarray(chunks[:, ::-1])
    return -chunks if polarity else chunks


@dataclass(frozen=True, eq=False)
class _Averaged:
    """A batch in all of its guises."""

    parts: Sequence[tuple[Callable[[Chunks], Chunks], Pending[Chunks]]]

    def result(self) -> Chunks:
        """The mean; see `Pending`."""
        first, *others = (guise(pending.result()) for guise, pending in self.parts)
        return sum(others, first) / np.float32(len(self.parts))

    def cancel(self) -> None:
        """See `Pending`."""
        for _, pending in reversed(self.parts):  # those at work last, so that no next one begins
            pending.cancel()
