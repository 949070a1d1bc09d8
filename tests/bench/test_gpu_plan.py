"""Laws of the part `plan` of `bench/gpu`; building and the whole part are in `test_gpu`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_engines import FunctionEngine, real_mask, with_chunks

from bench.gpu.clock import Clock
from bench.gpu.part import Job, Part, Skipped, relative_rms
from bench.gpu.plan import Replay, _sources, plan
from bench.gpu.song import separate_song

CPU = torch.device("cpu")


def part(tmp_path: Path, **job: Any) -> Part:
    job = {"part": "plan", "result": str(tmp_path / "result.json"), "rehearsal": True} | job
    return Part(Job(**job), Clock(CPU, rehearsal=True))


# --- where it is not for ---


def absent(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in names else real(name)
    )


def test_without_tensorrt_it_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    absent(monkeypatch, "tensorrt", "tensorrt_rtx")
    with pytest.raises(Skipped, match="neither tensorrt nor tensorrt_rtx is installed here"):
        plan(part(tmp_path, rehearsal=False))


def test_without_cupy_it_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("tensorrt_rtx")
    absent(monkeypatch, "cupy")
    with pytest.raises(Skipped, match="CuPy is not installed here"):
        plan(part(tmp_path, rehearsal=False))


def test_rehearsal_without_a_plugin_is_skipped(tmp_path: Path):
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(Skipped, match="name the plugin's library with --plugin"):
        plan(part(tmp_path))


# --- what it builds of ---


@pytest.mark.slow
def test_published_network_is_exported_with_the_weights_of_the_other_candidates(tmp_path: Path):
    from bench.gpu.network import model_of, new_network, spectrum_of
    from bsmamba2.runtime.engines.base import EngineOptions
    from bsmamba2.runtime.engines.onnxruntime import OnnxEngine

    at_work = part(tmp_path)
    sources = _sources(at_work, tmp_path)
    assert [source.metadata.precision for source in sources] == ["float16", "float32"]
    assert all(source.same_weights for source in sources)
    model = model_of(at_work)
    spectrum = spectrum_of(at_work, model, 3)
    with torch.inference_mode():
        expected = new_network(at_work, model)(spectrum)
    for source, tolerance in zip(sources, (2e-2, 1e-4), strict=True):
        found = OnnxEngine(source.path, EngineOptions(device="cpu"))(spectrum.numpy())
        assert relative_rms(torch.from_numpy(found), expected) < tolerance


def test_named_files_are_taken_and_must_be_of_one_network(tiny_onnx: Path, tmp_path: Path):
    twice = part(tmp_path, onnx=(str(tiny_onnx), str(tiny_onnx)))
    assert [source.path for source in _sources(twice, tmp_path)] == [tiny_onnx, tiny_onnx]
    other = with_chunks(tiny_onnx, 2, tmp_path / "other.onnx")
    with pytest.raises(RuntimeError, match="the ONNX files are of different networks"):
        _sources(part(tmp_path, onnx=(str(tiny_onnx), str(other))), tmp_path)


def test_without_onnx_it_is_the_embedded_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    absent(monkeypatch, "onnx")
    (source,) = _sources(part(tmp_path), tmp_path)
    assert source.path.name == "default.onnx"
    assert not source.same_weights


# --- figures ---


class HalvingEngine:
    """As a plan's engine has it, with NumPy's arrays for those on a GPU."""

    def __init__(self) -> None:
        self.made: list[tuple[int, int]] = []

    def network(self, batch: int, frames: int) -> Any:
        self.made.append((batch, frames))
        shape = (batch, 2, frames, 1025, 2)
        spectrum, mask = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        return SimpleNamespace(
            spectrum=spectrum, mask=mask, enqueue=lambda: np.divide(spectrum, 2, out=mask)
        )


def test_replay_is_the_plan_of_its_spectrum_whatever_came_before():
    engine = HalvingEngine()
    replay = Replay(engine, CPU)
    first, second = torch.randn(2, 2, 3, 1025, 2), torch.randn(2, 2, 3, 1025, 2)
    masks = [replay(first), replay(second), replay(first[:1])]
    for mask, spectrum in zip(masks, (first, second, first[:1]), strict=True):
        torch.testing.assert_close(mask, spectrum / 2)  # none was overwritten by a later one
    assert engine.made == [(2, 3), (1, 3)]


def test_engine_that_keeps_arrays_on_its_device_has_no_share_of_the_time(tmp_path: Path):
    from bsmamba2.runtime.engines.estimation import estimator_of

    engine = FunctionEngine(real_mask(0.5), chunk_s=2)
    figures = separate_song(part(tmp_path), engine)
    assert figures["share"]["engine"] + figures["share"]["rest"] == pytest.approx(1)
    assert figures["stft"] == "SciPy on the CPU"
    own = FunctionEngine(real_mask(0.5), chunk_s=2)
    host = FunctionEngine(real_mask(0.5), chunk_s=2)
    own.estimator = lambda batch: estimator_of(host, batch)  # type: ignore[attr-defined]
    figures = separate_song(part(tmp_path), own)
    assert (figures["share"], figures["stft"]) == (None, "CuPy on the GPU")
    assert not own.shapes
    assert host.shapes
