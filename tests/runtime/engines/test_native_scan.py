"""Laws of the native scan in ONNX Runtime: the library's operator replaces the function body."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from foreign_files import model_of
from onnx import TensorProto, helper
from processes import printed
from tolerances import assert_close

from bench.common.scans import ScanInputs, head_sizes, scan_inputs
from bsmamba2.cli.doctor_checks import examine
from bsmamba2.errors import ExportError
from bsmamba2.export.precision.gates import fixed_spectrum
from bsmamba2.formats.operator import DOMAIN, INPUTS, OP_TYPE
from bsmamba2.models.scan import bimamba2_scan_reference
from bsmamba2.plugins import cpu_library
from bsmamba2.plugins.cpu_library import find_cpu_library
from bsmamba2.runtime.engines import onnxruntime as engines
from bsmamba2.runtime.engines.base import EngineOptions
from bsmamba2.runtime.engines.onnxruntime import OnnxEngine

AUDIO = model_of("tiny").audio
ROOT = Path(__file__).parents[3]
SIZES = head_sizes(2, 16, 24)


def node_session(threads: int = 2, **attributes: Any) -> ort.InferenceSession:
    """A session of the operator alone, for any shapes, without a function body."""
    values = {"n_heads": SIZES.n_heads, "d_state": SIZES.d_state, "eps": 1e-5} | attributes
    node = helper.make_node(OP_TYPE, INPUTS, ["y"], domain=DOMAIN, **values)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in INPUTS]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("bsm", 1)]
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, outputs), opset_imports=opsets, ir_version=10
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(str(find_cpu_library()))
    return ort.InferenceSession(model.SerializeToString(), options)


def feeds(inputs: ScanInputs) -> dict[str, np.ndarray]:
    return {name: value.float().numpy() for name, value in zip(INPUTS, inputs.tensors, strict=True)}


@pytest.mark.parametrize("length", [1, 64, 65, 130])
def test_operator_is_near_the_reference(length: int):
    inputs = scan_inputs(3, length, SIZES)
    (y,) = node_session().run(None, feeds(inputs))
    expected = bimamba2_scan_reference(*inputs.arguments, **inputs.attributes)
    assert_close(y, expected, "float32")


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        ("zxbcdt", (1, 5, 2 * SIZES.width + 2), "not 2 \\* \\(2 d_inner"),
        ("zxbcdt", (5, 2 * SIZES.width), "zxbcdt must have 3 dimensions, not 2"),
        ("zxbcdt", (1, 0, 2 * SIZES.width), "not of length 0"),
        ("conv_weight", (2, SIZES.d_xbc + 1, 4), r"conv_weight must be \(2, 80, 4\), not \(2, 81"),
        ("conv_weight", (2, SIZES.d_xbc, 0), "no taps"),
        ("conv_bias", (1, SIZES.d_xbc), r"conv_bias must be \(2, 80\), not \(1, 80\)"),
        ("dt_bias", (2, 3), r"dt_bias must be \(2, 2\), not \(2, 3\)"),
        ("A", (2, 1), "A must be"),
        ("D", (2,), "D must have 2 dimensions, not 1"),
    ],
)
def test_shapes_that_do_not_fit_are_named(name: str, shape: tuple[int, ...], sentence: str):
    values = feeds(scan_inputs(1, 5, SIZES)) | {name: np.zeros(shape, np.float32)}
    with pytest.raises(Exception, match=sentence):
        node_session().run(None, values)


@pytest.mark.parametrize("missing", ["n_heads", "d_state", "eps"])
def test_a_missing_attribute_is_named(missing: str):
    with pytest.raises(Exception, match=missing):
        node_session(**{missing: None})


def test_threads_are_the_sessions():
    """A session of one thread computes in the thread that calls it, and starts none."""
    values = feeds(scan_inputs(20, 70, SIZES))
    session = node_session(threads=1)
    session.run(None, values)
    before = len(os.listdir("/proc/self/task"))
    (alone,) = session.run(None, values)
    assert len(os.listdir("/proc/self/task")) == before
    (together,) = node_session(threads=3).run(None, values)
    assert np.array_equal(alone, together)


def test_masks_are_those_of_the_body(tiny_export: Path):
    native, body = (
        OnnxEngine(tiny_export, EngineOptions(), native_scan=native) for native in (True, False)
    )
    assert native.scan.startswith("native ")
    assert body.scan == "function body"
    for frames in (1, 64, 130):
        spectrum = fixed_spectrum(AUDIO, frames)
        assert_close(native(spectrum), body(spectrum), "float32", slack=5)


def test_scans_really_are_native(tiny_export: Path, tmp_path: Path):
    """ONNX Runtime takes the library's operator although the file has a function body for it."""
    for native, scans in ((True, 4), (False, 0)):
        options = engines._options(1, engines._scan_library() if native else None)
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / "profile")
        session = ort.InferenceSession(str(tiny_export), options)
        session.run(None, {"spectrum": fixed_spectrum(AUDIO, 3)})
        text = Path(session.end_profiling()).read_text()
        assert text.count('"op_name" : "BiMamba2Scan"') == scans


def test_float16_files_take_their_body(tiny_half: Path):
    engine = OnnxEngine(tiny_half, EngineOptions())
    assert engine.scan == "function body"
    assert np.isfinite(engine(fixed_spectrum(AUDIO, 3))).all()


def test_without_the_library_the_body_computes(tiny_export: Path, monkeypatch: pytest.MonkeyPatch):
    expected = OnnxEngine(tiny_export, EngineOptions())(fixed_spectrum(AUDIO, 65))
    for module in (engines, cpu_library):
        monkeypatch.setattr(module, "find_cpu_library", lambda: None)
    engine = OnnxEngine(tiny_export, EngineOptions())
    assert engine.scan == "function body"
    assert_close(engine(fixed_spectrum(AUDIO, 65)), expected, "float32", slack=5)
    (check,) = [check for check in examine().checks["engines"] if check.name == ".onnx"]
    assert check.ok
    assert "twice as long" in check.detail
    assert "C++ compiler" in check.detail


def test_a_broken_library_is_done_without(
    tiny_export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    path = tmp_path / "broken.so"
    path.write_bytes(b"\x7fELF")
    monkeypatch.setattr(engines, "find_cpu_library", lambda: path)
    engine = OnnxEngine(tiny_export, EngineOptions())
    assert engine.scan == "function body"
    assert "takes longer" in caplog.text


def test_the_gate_of_an_export_looks_at_the_body(
    tiny_checkpoint: Path, tiny_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A file with a wrong function body must not pass because this machine uses the native scan."""
    from bsmamba2.export import to_onnx

    wrong = onnx.load(tiny_export)
    sqrt = next(node for node in wrong.functions[0].node if node.op_type == "Sqrt")
    sqrt.op_type = "Identity"
    monkeypatch.setattr(to_onnx, "export_graph", lambda *_: wrong)
    with pytest.raises(ExportError, match="differs from PyTorch's"):
        to_onnx.export_onnx(tiny_checkpoint, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("compiler", ["fails", "another kind"])
def test_installs_without_a_compiler(tmp_path: Path, compiler: str):
    """Runs setup.py on a copy of the sources; `test_packaging` installs with a compiler."""
    source = tmp_path / "source"
    for name in ("bsmamba2", "plugins", "export", "runtime"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.so", "*.onnx"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    broken = {"CC": "false", "CXX": "false"} if compiler == "fails" else {}
    start = "import runpy, setuptools, distutils.unixccompiler as unix;"
    if compiler == "another kind":
        start += "unix.UnixCCompiler.compiler_type = 'msvc';"
    program = f"{start} runpy.run_path('setup.py')"
    printed(program, "-q", "build_ext", "--inplace", folder=source, **broken)
    assert not (source / "plugins" / cpu_library.LIBRARY).exists()
