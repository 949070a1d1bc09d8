"""Laws of the engines: all backends compute the same mask, and fail with one sentence."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exported_files import INLINERS, inline_scans
from foreign_files import model_of
from networks import random_network
from processes import python
from tolerances import assert_close

from bsmamba2.errors import BsmError, EngineError
from bsmamba2.export.precision.gates import fixed_spectrum
from bsmamba2.runtime.engines import Engine, EngineOptions, load_engine
from bsmamba2.runtime.engines.onnxruntime import OnnxEngine
from bsmamba2.system.cores import usable_cores

AUDIO = model_of("tiny").audio


@pytest.fixture(scope="module", params=["tiny_export", "tiny_checkpoint"], ids=["onnx", "torch"])
def path(request: pytest.FixtureRequest) -> Path:
    """The same weights for either backend."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def engine(path: Path) -> Engine:
    return load_engine(path, EngineOptions(device="cpu"))


# --- the mask ---


@pytest.mark.parametrize("frames", [1, 63, 130])
def test_mask_is_the_networks(engine: Engine, frames: int):
    spectrum = fixed_spectrum(AUDIO, frames)
    before = spectrum.copy()
    mask = engine(spectrum)
    assert (mask.shape, mask.dtype) == (spectrum.shape, np.float32)
    assert np.array_equal(spectrum, before)
    with torch.no_grad():
        expected = random_network()(torch.from_numpy(spectrum).double())
    assert_close(mask, expected, "float32", slack=10)  # loud harmonics beside digital silence


def test_items_of_a_batch_do_not_touch_each_other(engine: Engine):
    spectrum = fixed_spectrum(AUDIO, 130).reshape(2, 65, 2, 1025, 2).swapaxes(1, 2)
    spectrum = np.ascontiguousarray(spectrum)
    alone = [engine(item[None]) for item in spectrum]
    assert_close(engine(spectrum), np.concatenate(alone), "float32", slack=5)


def test_silence_has_a_finite_mask(engine: Engine):
    assert np.isfinite(engine(np.zeros((1, 2, 65, 1025, 2), np.float32))).all()


def test_calls_do_not_change_each_other(engine: Engine):
    spectrum = fixed_spectrum(AUDIO, 63)
    first = engine(spectrum)
    kept = first.copy()
    engine(fixed_spectrum(AUDIO, 2))
    assert np.array_equal(engine(spectrum), kept)
    assert np.array_equal(first, kept)


def test_one_thread_is_as_good(path: Path):
    threads, spectrum = torch.get_num_threads(), fixed_spectrum(AUDIO, 63)
    try:
        expected = load_engine(path)(spectrum)
        engine = load_engine(path, EngineOptions(threads=1))
        assert engine.describe()["threads"] == 1
        if isinstance(engine, OnnxEngine):
            assert engine._session.get_session_options().intra_op_num_threads == 1
        else:
            assert torch.get_num_threads() == 1
        assert_close(engine(spectrum), expected, "float32", slack=5)
    finally:
        torch.set_num_threads(threads)


def test_more_threads_than_cores_are_too_many(path: Path):
    before = torch.get_num_threads()
    try:
        engine = load_engine(path, EngineOptions(threads=4000))
        assert engine.describe()["threads"] == usable_cores()
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
def test_by_default_an_engine_takes_the_cores_that_this_process_may_use(path: Path):
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    try:
        os.sched_setaffinity(0, {min(before)})
        expected = None if os.cpu_count() == 1 and path.suffix == ".onnx" else 1
        assert load_engine(path).describe()["threads"] == expected
    finally:
        os.sched_setaffinity(0, before)
        torch.set_num_threads(threads)


def test_engine_says_what_it_is(engine: Engine, path: Path):
    said = engine.describe()
    backend, module = {
        ".onnx": ("onnxruntime", onnxruntime),
        ".safetensors": ("pytorch", torch),
    }[path.suffix]
    assert (said["backend"], said["version"]) == (backend, module.__version__)
    assert said["device"] == engine.device == "cpu"
    assert (engine.precision, engine.batch) == ("float32", None)
    json.dumps(said)
    assert engine.metadata.model == model_of("tiny")
    assert engine.metadata.provenance.source == "a test"


def test_an_engine_is_made_in_each_process(engine: Engine):
    with pytest.raises(TypeError, match="make one in each process"):
        pickle.dumps(engine)


def test_default_engine_is_in_the_package():
    engine = load_engine(options=EngineOptions(device="cpu", threads=1))
    spectrum = fixed_spectrum(engine.metadata.model.audio, 2)
    assert engine(spectrum).shape == spectrum.shape


# --- spectra that are refused ---


def spectrum_of(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    "spectrum",
    [
        spectrum_of(2, 3, 1025, 2),
        spectrum_of(1, 1, 3, 1025, 2),
        spectrum_of(1, 2, 3, 1024, 2),
        spectrum_of(1, 2, 1025, 3, 2),
        spectrum_of(1, 2, 3, 1025),
        spectrum_of(),
        spectrum_of(1, 2, 0, 1025, 2),
        spectrum_of(0, 2, 3, 1025, 2),
        spectrum_of(1, 2, 3, 1025, 2, dtype=np.float64),
        spectrum_of(1, 2, 3, 1025, 2, dtype=np.float16),
        spectrum_of(1, 2, 3, 1025, 2, dtype=np.complex64),
        spectrum_of(1, 2, 3, 1025, 2, dtype=np.int32),
    ],
    ids=lambda spectrum: f"{spectrum.dtype}{spectrum.shape}",
)
def test_other_spectra_are_refused_with_their_shape(engine: Engine, spectrum: np.ndarray):
    with pytest.raises(EngineError, match=r"\A[^\n]+\Z") as error:
        engine(spectrum)
    assert str(spectrum.shape) in str(error.value)


def test_failure_of_the_backend_is_one_sentence(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory\ntried to allocate 1 TB")

    inside = "_session" if hasattr(engine, "_session") else "_network"
    broken = type("Broken", (), {"run": fail, "__call__": fail})()
    monkeypatch.setattr(engine, inside, broken)
    with pytest.raises(EngineError, match=r"\A[^\n]+: out of memory; free memory, [^\n]+\Z"):
        engine(fixed_spectrum(AUDIO, 1))


# --- files that are refused ---


def refused(path: Path | str, **options: Any) -> str:
    """Loads a file that must be refused; returns the sentence."""
    with pytest.raises(BsmError, match=r"\A[^\n]+\Z") as error:
        load_engine(path, EngineOptions(**options))
    return str(error.value)


@pytest.mark.parametrize("name", ["a.plan", "a.pt", "a.ckpt", "a", "a.wav", "a.ONNX"])
def test_other_suffixes_name_what_to_do(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"x")
    sentence = refused(tmp_path / name)
    assert name in sentence
    assert ("sidecar a.plan.json" if name == "a.plan" else "use a .onnx, .plan or") in sentence


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors", ".plan", ""])
def test_absent_files_and_folders_are_named(tmp_path: Path, suffix: str):
    assert "No such file" in refused(tmp_path / f"absent{suffix}")
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    assert "folder" in refused(folder)


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
@pytest.mark.parametrize("data", [b"", b"no model\n" * 100, bytes(64)], ids=["0", "text", "nul"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str, data: bytes):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    assert str(path) in refused(path)


def test_truncated_files_are_named(path: Path, tmp_path: Path):
    data = path.read_bytes()
    cut = tmp_path / f"cut{path.suffix}"
    for length in (1, 100, len(data) // 2, len(data) - 1):
        cut.write_bytes(data[:length])
        assert str(cut) in refused(cut)


def onnx_of_another_model(path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([], "g", [value], [value])
    onnx.save(onnx.helper.make_model(graph, ir_version=10), path)


def test_onnx_of_another_model_names_the_command(tmp_path: Path):
    onnx_of_another_model(tmp_path / "a.onnx")
    sentence = refused(tmp_path / "a.onnx")
    assert "no BSMamba2 configuration" in sentence
    assert "bsm export" in sentence


@pytest.mark.parametrize("tool", INLINERS)
def test_a_file_whose_scans_another_tool_has_inlined_has_the_same_mask(
    tiny_export: Path, tmp_path: Path, tool: str
):
    engine, spectrum = load_engine(tiny_export), fixed_spectrum(AUDIO, 130)
    inlined = load_engine(inline_scans(tiny_export, tmp_path / "a.onnx", tool))
    assert inlined.describe()["scan"] == "inlined"
    assert inlined.metadata == engine.metadata
    assert_close(inlined(spectrum), engine(spectrum), "float32", slack=10)  # both near the network


def test_a_lower_precision_is_inlined_like_float32(tiny_half: Path, tmp_path: Path):
    spectrum = fixed_spectrum(AUDIO, 63)
    inlined = load_engine(inline_scans(tiny_half, tmp_path / "a.onnx", "extended"))
    assert_close(inlined(spectrum), load_engine(tiny_half)(spectrum), "float16", slack=10)


def test_inlined_scans_of_other_layers_are_refused(tiny_export: Path, tmp_path: Path):
    model = onnx.load(inline_scans(tiny_export, tmp_path / "a.onnx", "onnx.inliner"))
    pairs = {pair.key: pair.value for pair in model.metadata_props}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, edit_config(pairs, layers=3))
    onnx.save(model, tmp_path / "a.onnx")
    assert "0 scan nodes for 6 blocks" in refused(tmp_path / "a.onnx")


def edit_config(metadata: dict[str, str], **changes: Any) -> dict[str, str]:
    config = json.loads(metadata["bsm.config"])
    config["network"] |= changes
    return metadata | {"bsm.config": json.dumps(config)}


@pytest.fixture
def tampered(path: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of an engine file with other metadata."""

    def tamper(change: Callable[[dict[str, str]], dict[str, str]]) -> Path:
        target = tmp_path / f"tampered{path.suffix}"
        if path.suffix == ".onnx":
            model = onnx.load(path)
            metadata = change({item.key: item.value for item in model.metadata_props})
            del model.metadata_props[:]
            onnx.helper.set_model_props(model, metadata)
            onnx.save(model, target)
        else:
            data = path.read_bytes()
            (length,) = struct.unpack("<Q", data[:8])
            header = json.loads(data[8 : 8 + length])
            header["__metadata__"] = change(header["__metadata__"])
            text = json.dumps(header).encode()
            target.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        return target

    return tamper


def test_an_onnx_file_whose_mask_has_another_shape_is_one_sentence(tiny_export: Path):
    model = onnx.load(tiny_export)
    (mask,) = model.graph.output
    last = next(node for node in model.graph.node if mask.name in node.output)
    last.output[list(last.output).index(mask.name)] = "whole"
    model.graph.node.append(onnx.helper.make_node("Concat", ["whole"] * 2, [mask.name], axis=0))
    mask.type.tensor_type.ClearField("shape")
    onnx.save(model, tiny_export.with_name("twice.onnx"))
    engine = load_engine(tiny_export.with_name("twice.onnx"))
    with pytest.raises(EngineError, match=r"computed a mask of shape \(2, .*: export it again"):
        engine(fixed_spectrum(AUDIO, 3))


def test_metadata_of_other_layers_is_refused(tampered: Callable[..., Path]):
    target = tampered(lambda metadata: edit_config(metadata, layers=3))
    sentence = refused(target)
    assert str(target) in sentence
    assert ("4 scan nodes for 6 blocks" if target.suffix == ".onnx" else "missing") in sentence


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata: {},
        lambda metadata: metadata | {"bsm.config": "{"},
        lambda metadata: metadata | {"bsm.config": "[]"},
        lambda metadata: metadata | {"bsm.format": "2"},
        lambda metadata: metadata | {"bsm.provenance": "{}"},
        lambda metadata: edit_config(metadata, layers="two"),
        lambda metadata: edit_config(metadata, depth=3),
        lambda metadata: edit_config(metadata, bands=[[1, 1]]),
    ],
)
def test_damaged_metadata_is_refused(
    tampered: Callable[..., Path], change: Callable[[dict[str, str]], dict[str, str]]
):
    target = tampered(change)
    assert str(target) in refused(target)


# --- devices and threads ---


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_cpu_is_always_there(path: Path, device: str):
    assert load_engine(path, EngineOptions(device=device))(fixed_spectrum(AUDIO, 1)).any()


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_cuda_without_a_gpu_is_one_sentence(path: Path):
    sentence = refused(path, device="cuda")
    assert ("onnxruntime-gpu" if path.suffix == ".onnx" else "--device cpu") in sentence


@pytest.mark.parametrize(
    "options", [{"device": "tpu"}, {"threads": 0}, {"threads": -1}, {"precision": "int3"}]
)
def test_options_that_cannot_be_are_one_sentence(path: Path, options: dict[str, Any]):
    (value,) = options.values()
    assert str(value) in refused(path, **options)


def test_float16_is_refused_where_it_cannot_be(path: Path):
    sentence = refused(path, device="cpu", precision="float16")
    assert ("leave --precision out" if path.suffix == ".onnx" else "needs a GPU") in sentence
    assert "precision of the embedded engine is" in refused("default", precision="float16")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_mask_on_a_gpu_is_the_networks(tiny_checkpoint: Path, precision: str):
    engine = load_engine(tiny_checkpoint, EngineOptions(device="cuda", precision=precision))
    for frames in (1, 130, 63, 130):
        spectrum = fixed_spectrum(AUDIO, frames)
        with torch.no_grad():
            expected = random_network()(torch.from_numpy(spectrum).double())
        assert_close(engine(spectrum), expected, precision, slack=10)


# --- what it costs ---


def test_onnx_engine_does_not_import_torch(tiny_export: Path):
    code = (
        "import sys, numpy; from bsmamba2.runtime.engines import load_engine;"
        "engine = load_engine(sys.argv[1]);"
        "assert engine(numpy.ones((1, 2, 3, 1025, 2), numpy.float32)).any();"
        "print({'torch', 'onnx', 'safetensors', 'bsmamba2.export'} & set(sys.modules))"
    )
    done = python(code, tiny_export)
    assert (done.stdout, done.stderr) == ("set()\n", "")
