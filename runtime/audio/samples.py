"""The type of audio samples in all stages of the runtime, and the check of their values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from bsmamba2.errors import AudioError

Samples = NDArray[np.float32]
"""(channels, n), full scale 1."""
MAX_LEVEL = float(1 << 32)
"""Largest sample that is accepted, in units of full scale: some programs write 32-bit integers as
floats, and the squares of much larger numbers overflow."""


def check_samples(block: Samples, start: int, rate: int, what: str) -> None:
    """Raises AudioError with the time of the first NaN, Inf or number beyond MAX_LEVEL.

    Args:
        block: (channels, n).
        start: Position of the block in the song, in samples.
        rate: Sample rate in Hz.
        what: Subject of the sentence, such as "The mixture".
    """
    usable = (np.abs(block) <= MAX_LEVEL).all(axis=0)  # False for NaN
    if not usable.all():
        time_s = (start + int(np.argmin(usable))) / rate
        column = block[:, np.argmin(usable)]
        kind = (
            "samples far above full scale"
            if np.isfinite(column).all()
            else "NaN or infinite samples"
        )
        raise AudioError(f"{what} holds {kind} at {time_s:.3f} s: repair or cut that passage.")


def skip(blocks: Iterable[Samples], count: int) -> Iterator[Samples]:
    """Drops the first `count` samples of a sequence of blocks (channels, n)."""
    for block in blocks:
        if block.shape[1] > count:
            yield block[:, count:]
        count = max(0, count - block.shape[1])
