"""Separates songs with plans whose network is a function, and checks the result."""

from __future__ import annotations

from typing import Any

import numpy as np
from audio_files import RATE
from fake_gpu.machine import Machine
from small_engines import FunctionEngine

from bsmamba2.runtime.separation.separator import Separator


def quick(spectrum: np.ndarray) -> np.ndarray:
    """A mask that differs from chunk to chunk and from bin to bin."""
    return (spectrum / (1 + np.abs(spectrum))).astype(np.float32)


def vocals(engine: Any, mixture: np.ndarray, batch: int = 1) -> np.ndarray:
    return Separator(engine, overlap_s=0.25, batch=batch).separate(mixture, RATE)["vocals"]


def assert_same(found: np.ndarray, mixture: np.ndarray) -> None:
    """Checks that `found` is the target of `quick` on the CPU, up to the rounding of batches."""
    expected = vocals(FunctionEngine(quick), mixture)
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


def names(machine: Machine, *wanted: str, stream: int | None = None) -> list[str]:
    """Returns those of the wanted names that the machine logged, of all streams or of one."""
    return [what for what, number in machine.log if what in wanted and stream in (None, number)]
