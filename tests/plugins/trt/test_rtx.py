"""TensorRT-RTX's parser uses the plugin; `export/test_tensorrt.py` builds plans with it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import ModelProto

from bsmamba2.formats.operator import OP_TYPE

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="needs tensorrt-rtx"
)
WORKER = Path(__file__).with_name("rtx_worker.py")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(WORKER), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def parse(*arguments: str | Path) -> dict[str, Any]:
    """The worker's report."""
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def scans(model: ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == OP_TYPE]


def inlined(report: dict[str, Any], model: ModelProto) -> set[str]:
    """Layers that come from the operator's function body; they are named after their outputs."""
    (body,) = model.functions
    made = {f"node_of_{name}" for node in body.node for name in node.output}
    return made & set(report["names"])


@pytest.fixture
def model(tiny_onnx: Path) -> ModelProto:
    return onnx.load(tiny_onnx)


@pytest.fixture
def half_model(tiny_half: Path) -> ModelProto:
    return onnx.load(tiny_half)


@pytest.mark.parametrize("name", ["model", "half_model"])
def test_every_scan_node_becomes_a_plugin_layer_and_nothing_of_the_body_is_left(
    request: pytest.FixtureRequest, plugin_library: Path, tmp_path: Path, name: str
):
    model, path = request.getfixturevalue(name), tmp_path / "model.onnx"
    onnx.save(model, path)
    report = parse(path, "--plugin", plugin_library, "--scan-nodes", "4")
    assert report["errors"] == []
    assert report["parsed"]
    assert report["plugins"] == report["types"].count("PLUGIN_V3") == len(scans(model)) == 4
    assert report["check"] == ""
    assert not inlined(report, model)


# --- what TensorRT-RTX does not report ---


def test_without_the_plugin_the_body_is_inlined_and_the_check_says_so(
    model: ModelProto, tiny_onnx: Path
):
    report = parse(tiny_onnx, "--scan-nodes", "4")
    assert report["parsed"]
    assert report["plugins"] == 0
    assert inlined(report, model)
    assert report["check"].startswith("The network has 0 plugin layers for 4 scan nodes: ")


@pytest.mark.parametrize("name", ["plugin_namespace", "plugin_version"])
def test_node_that_does_not_name_the_creator_is_inlined_and_the_check_says_so(
    model: ModelProto, plugin_library: Path, tmp_path: Path, name: str
):
    first = scans(model)[0]
    (attribute,) = (attribute for attribute in first.attribute if attribute.name == name)
    attribute.s = b"7"
    onnx.save(model, tmp_path / "model.onnx")
    options = ("--plugin", plugin_library, "--scan-nodes", "4")
    report = parse(tmp_path / "model.onnx", *options)
    assert report["parsed"]
    assert report["plugins"] == 3
    assert inlined(report, model)
    assert report["check"].startswith("The network has 3 plugin layers for 4 scan nodes: ")


def test_tensorrt_rtx_as_installed_ends_the_process(tiny_onnx: Path, plugin_library: Path):
    """Why `rtx_name` exists. When this fails, TensorRT-RTX no longer needs it."""
    done = run(tiny_onnx, "--plugin", plugin_library, "--as-installed")
    assert done.returncode < 0, done.stderr


# --- messages go to stderr: TensorRT-RTX is version 1 and the headers are not ---


def errors(model: ModelProto, plugin: Path, folder: Path) -> str:
    """The plugin's message on stderr for a graph that must not parse; the parser writes none."""
    onnx.save(model, folder / "model.onnx")
    done = run(folder / "model.onnx", "--plugin", plugin)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert not report["parsed"]
    assert "bsm::" not in "".join(report["errors"])
    return done.stderr


def test_bad_attribute_is_an_error_on_stderr(
    model: ModelProto, plugin_library: Path, tmp_path: Path
):
    for attribute in scans(model)[0].attribute:
        if attribute.name == "n_heads":
            attribute.i = 65
    sentence = "bsm::BiMamba2Scan: attribute n_heads must be 1 to 64, not 65"
    assert sentence in errors(model, plugin_library, tmp_path)


def test_bad_shape_is_an_error_on_stderr(model: ModelProto, plugin_library: Path, tmp_path: Path):
    scan = scans(model)[0]
    scan.input[2] = scan.input[1]
    found = errors(model, plugin_library, tmp_path)
    assert "bsm::BiMamba2Scan: conv_bias must be (2, 128) for zxbcdt (?, ?, 388)" in found


def test_missing_input_is_an_error_on_stderr(
    model: ModelProto, plugin_library: Path, tmp_path: Path
):
    del scans(model)[0].input[5]
    assert "it takes 6 inputs" in errors(model, plugin_library, tmp_path)


def test_bad_type_is_an_error_on_stderr(
    half_model: ModelProto, plugin_library: Path, tmp_path: Path
):
    scan = scans(half_model)[0]
    scan.input[1], weight = "weight", scan.input[1]
    cast = onnx.helper.make_node("Cast", [weight], ["weight"], to=onnx.TensorProto.FLOAT)
    half_model.graph.node.insert(0, cast)
    found = errors(half_model, plugin_library, tmp_path)
    assert "conv_weight must be float16 as zxbcdt is, not float32" in found
