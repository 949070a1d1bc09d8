"""If the GPU runs out of memory, a plan continues with smaller batches."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest
from audio_files import RATE, noise
from fake_gpu.machine import CUDARuntimeError, Machine
from plan_songs import assert_same, quick, vocals

from bsmamba2.runtime.engines.estimation import Batch
from bsmamba2.runtime.engines.tensorrt.device import OutOfDeviceMemoryError
from bsmamba2.runtime.engines.tensorrt.engine import PlanEngine

OUT_OF_MEMORY = CUDARuntimeError(2, "cudaErrorMemoryAllocation: out of memory")


def peak(load: Callable[..., PlanEngine], machine: Machine, batch: int) -> int:
    """Bytes that batches of a size take, two of them at a time."""
    machine.peak = machine.used
    vocals(load(), noise(8 * RATE), batch)
    return machine.peak


def masks_peak(load: Callable[..., PlanEngine], machine: Machine, spectra: np.ndarray) -> int:
    """Bytes that masks take."""
    gc.collect()
    before = machine.peak = machine.used
    load()(spectra)
    return machine.peak - before


@pytest.mark.parametrize(("batch", "fits", "said"), [(4, 2, 1), (4, 1, 2), (2, 1, 1)])
def test_batches_that_do_not_fit_are_halved_and_it_is_said(
    machine: Machine,
    load: Callable[..., PlanEngine],
    caplog: pytest.LogCaptureFixture,
    batch: int,
    fits: int,
    said: int,
):
    machine.memory = (peak(load, machine, fits) + peak(load, machine, 2 * fits)) // 2
    engine, mixture = load(), noise(9 * RATE)
    assert_same(vocals(engine, mixture, batch), mixture)
    assert engine.estimator(batch).limit.chunks == fits
    assert_same(vocals(engine, mixture, batch), mixture)
    assert len(caplog.messages) == said
    assert "too little memory for" in caplog.messages[-1]
    assert "Continuing with" in caplog.messages[-1]


def test_where_two_chunks_do_not_fit_they_go_one_after_the_other(
    machine: Machine, load: Callable[..., PlanEngine], caplog: pytest.LogCaptureFixture
):
    machine.memory = int(0.75 * peak(load, machine, 1))
    mixture = noise(5 * RATE)
    assert_same(vocals(load(), mixture), mixture)
    (line,) = caplog.messages
    assert line.endswith("Continuing with one batch after the other.")


def test_where_one_chunk_does_not_fit_it_is_one_sentence(
    machine: Machine, load: Callable[..., PlanEngine]
):
    machine.memory = int(0.25 * peak(load, machine, 1))
    with pytest.raises(OutOfDeviceMemoryError, match=r"\A[^\n]+ a chunk [^\n]+use the \.onnx"):
        vocals(load(), noise(5 * RATE))
    machine.memory = 1 << 40


@pytest.mark.parametrize("where", ["execute", "launch"])
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_memory_that_runs_out_on_the_way_is_the_same(
    machine: Machine,
    load: Callable[..., PlanEngine],
    caplog: pytest.LogCaptureFixture,
    where: str,
    batch: int,
):
    engine, mixture = load(), noise(9 * RATE)
    machine.fail_at[where] = OUT_OF_MEMORY
    assert_same(vocals(engine, mixture, batch), mixture)
    assert not machine.fail_at
    assert engine.estimator(batch).limit.chunks == max(1, batch // 2)
    (line,) = caplog.messages
    assert "cudaErrorMemoryAllocation" in line


def test_masks_that_do_not_fit_are_computed_in_smaller_batches(
    machine: Machine, load: Callable[..., PlanEngine], caplog: pytest.LogCaptureFixture
):
    spectra = np.random.default_rng(0).standard_normal((4, 2, 101, 1025, 2), np.float32)
    engine = load()
    machine.fail_at["execute"] = OUT_OF_MEMORY
    assert np.array_equal(engine(spectra), quick(spectra))
    (line,) = caplog.messages
    assert "too little memory for" in line
    assert line.endswith("Continuing with 2 chunks at a time.")
    machine.memory = 1
    with pytest.raises(OutOfDeviceMemoryError, match=r"\A[^\n]+use the \.onnx[^\n]+\Z"):
        engine(spectra[:, :, :70])


def test_masks_and_songs_give_way_to_each_other(
    machine: Machine, load: Callable[..., PlanEngine], caplog: pytest.LogCaptureFixture
):
    mixture = noise(3 * RATE)
    spectra = np.random.default_rng(0).standard_normal((4, 2, 101, 1025, 2), np.float32)
    machine.memory = max(peak(load, machine, 1), masks_peak(load, machine, spectra))
    engine = load()
    for _ in range(2):
        assert_same(vocals(engine, mixture), mixture)
        assert np.array_equal(engine(spectra), quick(spectra))
    assert not caplog.messages  # no warning: neither gets smaller batches


def test_masks_let_a_batch_on_its_way_end_first(machine: Machine, load: Callable[..., PlanEngine]):
    spectra = np.random.default_rng(0).standard_normal((4, 2, 101, 1025, 2), np.float32)
    machine.memory = max(peak(load, machine, 1), masks_peak(load, machine, spectra))
    engine = load()
    chunk = noise(RATE)[None]
    pending = [engine.estimator(1).begin(Batch(chunk, (0,))) for _ in range(2)]
    assert np.array_equal(engine(spectra), quick(spectra))
    expected = engine.estimator(1).begin(Batch(chunk, (0,))).result()
    for one in pending:
        assert np.array_equal(one.result(), expected)


def test_memory_does_not_grow_with_the_song(machine: Machine, load: Callable[..., PlanEngine]):
    engine = load()
    vocals(engine, noise(5 * RATE))
    first, machine.peak = machine.peak, 0
    vocals(engine, noise(20 * RATE))
    assert machine.peak <= first
