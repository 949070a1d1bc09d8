"""What a plan's first runs leave for later ones: CUDA graphs, and kernels for the next process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from audio_files import RATE, noise
from fake_gpu.machine import CUDARuntimeError, Machine
from plan_songs import assert_same, names, quick, vocals
from plans import install, write_plan

from bsmamba2.runtime.engines import load_engine
from bsmamba2.runtime.engines.tensorrt.engine import PlanEngine

# --- CUDA graphs ---


@pytest.mark.parametrize("builder", ["tensorrt", "tensorrt-rtx"])
def test_each_stream_captures_once_after_a_first_run(
    machine: Machine, short_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    builder: str,
):  # fmt: skip
    install(monkeypatch, machine, builder=builder, compute=quick)
    path = write_plan(
        short_onnx, tmp_path / "a.plan", change=lambda record: replace(record, builder=builder)
    )
    engine, mixture = load_engine(path), noise(7 * RATE)
    assert_same(vocals(engine, mixture, 2), mixture)
    assert names(machine, "capture", "captured") == ["capture", "captured"] * 2
    for stream in {number for what, number in machine.log if what == "launch"}:
        own = names(machine, "execute", "capture", "captured", "launch", stream=stream)
        launches = own.count("launch")
        assert own == ["execute", "capture", "execute", "captured", *["launch"] * launches]
    machine.log.clear()
    assert_same(vocals(engine, mixture, 2), mixture)
    assert names(machine, "execute", "capture") == []  # the last batch was smaller, too


def test_what_cannot_be_captured_runs_as_well_with_one_line(
    machine: Machine, load: Callable[..., PlanEngine], caplog: pytest.LogCaptureFixture
):
    mixture = noise(5 * RATE)
    assert_same(vocals(load(capturable=False), mixture), mixture)
    assert not names(machine, "capture", "launch")
    (line,) = caplog.messages
    assert "without a CUDA graph" in line


@pytest.mark.parametrize("where", ["capture", "captured"])
def test_a_capture_that_fails_runs_as_well_with_one_line(
    machine: Machine, load: Callable[..., PlanEngine], caplog: pytest.LogCaptureFixture, where: str
):
    machine.fail_at[where] = CUDARuntimeError(901, "cudaErrorStreamCaptureInvalidated")
    mixture = noise(7 * RATE)
    assert_same(vocals(load(), mixture), mixture)
    assert len(names(machine, "captured")) == (1 if where == "capture" else 2)
    (line,) = caplog.messages
    assert "cudaErrorStreamCaptureInvalidated" in line


# --- what TensorRT-RTX compiles ---


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "bsmamba2/kernels").iterdir())


def test_what_was_compiled_for_a_shape_is_there_for_the_next_process(
    machine: Machine, load: Callable[..., PlanEngine], own_cache: Path
):
    mixture = noise(3 * RATE)
    vocals(load(), mixture)
    vocals(load(), mixture)
    assert len(names(machine, "compile")) == 1
    vocals(load(), mixture, 2)
    assert len(names(machine, "compile")) == 2
    (path,) = kept(own_cache)
    assert path.name.endswith("-1.7.1.116-9.0.cache")
    assert not path.parent.stat().st_mode & 0o077
    machine.capability = "120"
    vocals(load(), mixture)
    assert len(kept(own_cache)) == 2


@pytest.mark.parametrize("damage", ["text", "folder", "open"])
def test_a_cache_that_cannot_be_used_only_costs_time(
    machine: Machine, load: Callable[..., PlanEngine], own_cache: Path, damage: str,
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    mixture = noise(3 * RATE)
    assert_same(vocals(load(), mixture), mixture)
    (path,) = kept(own_cache)
    if damage == "text":
        path.write_text("nothing")
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.parent.parent.chmod(0o777)
    assert_same(vocals(load(), mixture), mixture)
    assert len(names(machine, "compile")) == 2
    assert len(caplog.messages) == (0 if damage == "text" else 1)
