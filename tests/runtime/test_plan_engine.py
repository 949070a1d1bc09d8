"""A plan gives what the ONNX file gives that it was built from, two batches at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_gpu.machine import Machine
from plans import install, write_plan
from small_engines import with_chunks
from tolerances import assert_close

from bsmamba2.runtime.engines import load_engine
from bsmamba2.runtime.separator import Separator

RATE = 44100


@pytest.fixture(scope="session")
def short_onnx(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in chunks of a second."""
    return with_chunks(tiny_onnx, 1, tmp_path_factory.mktemp("short") / "tiny.onnx")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    install(monkeypatch, machine)
    return machine


@pytest.fixture
def plan(short_onnx: Path, tmp_path: Path) -> Path:
    return write_plan(short_onnx, tmp_path / "model.plan")


def noise(n: int) -> np.ndarray:
    return (np.random.default_rng(n).standard_normal((2, n)) * 0.1).astype(np.float32)


def stems(path: Path, mixture: np.ndarray, batch: int = 1) -> dict[str, np.ndarray]:
    return Separator(load_engine(path), overlap_s=0.25, batch=batch).separate(mixture, RATE)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 9])
def test_stems_are_those_of_the_onnx_file(
    machine: Machine, plan: Path, short_onnx: Path, batch: int
):
    mixture = noise(7 * RATE)
    found, expected = stems(plan, mixture, batch), stems(short_onnx, mixture)
    for name, stem in expected.items():
        assert_close(found[name], stem, "float32", slack=5)
