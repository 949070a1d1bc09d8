"""The default batch size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_engines import FunctionEngine, real_mask

from bsmamba2.runtime.engines import EngineOptions, load_engine
from bsmamba2.runtime.separation.batching import (
    MOST_CHUNKS,
    MeasuringEngine,
    useful_batch,
)

if TYPE_CHECKING:
    from bsmamba2.runtime.engines.tensorrt.engine import PlanEngine


class Measured(FunctionEngine):
    """An engine on a device with a given amount of memory."""

    memory: tuple[int, int] | None = None

    def chunk_memory(self) -> tuple[int, int] | None:
        return self.memory


@pytest.mark.parametrize(
    ("chunk", "free", "batch"),
    [(100, 10_000, MOST_CHUNKS), (100, 250, 2), (100, 249, 1), (100, 0, 1), (0, 100, MOST_CHUNKS)],
)
def test_a_batch_fits_what_is_free_with_a_fifth_to_spare(chunk: int, free: int, batch: int):
    engine = Measured(real_mask(1))
    engine.memory = chunk, free
    assert useful_batch(engine) == batch


def test_engines_on_a_cpu_get_one_chunk_at_a_time(tiny_checkpoint: Path, tiny_onnx: Path):
    pytest.importorskip("torch")
    for path in (tiny_checkpoint, tiny_onnx):
        assert useful_batch(load_engine(path, EngineOptions(device="cpu"))) == 1
    assert useful_batch(Measured(real_mask(1))) == 1


def test_a_plan_gets_what_it_was_built_for(load: Callable[..., PlanEngine]):
    engine = load()
    assert useful_batch(engine) == engine.record.batch[1]


@pytest.mark.gpu
def test_a_chunk_on_a_gpu_takes_memory_of_what_is_there(tiny_checkpoint: Path):
    engine = load_engine(tiny_checkpoint, EngineOptions(device="cuda"))
    assert isinstance(engine, MeasuringEngine)
    measured = engine.chunk_memory()
    assert measured is not None
    taken, free = measured
    assert 0 < taken < free
