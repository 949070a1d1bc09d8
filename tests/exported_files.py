"""Checks that hold for every exported file, whatever network it contains."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.inliner
import onnxruntime
import pytest
from foreign_files import model_of
from onnx import ModelProto

from bsmamba2.formats.metadata import Metadata
from bsmamba2.formats.operator import SCAN_NODE


def scan_nodes(model: ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if (node.domain, node.op_type) == SCAN_NODE]


INLINERS = ("onnx.inliner", "basic", "extended", "all")
"""Tools of `inline_scans`: the last three are levels of ONNX Runtime's optimiser."""


def inline_scans(source: Path, target: Path, tool: str) -> Path:
    """Writes a file as another tool does that replaces its scan nodes by their function body."""
    if tool == "onnx.inliner":
        onnx.save(onnx.inliner.inline_local_functions(onnx.load(source)), target)
        return target
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(target)
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{tool.upper()}"
    )
    options.log_severity_level = 4  # "all" warns that its result is for this machine
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return target


def assert_is_an_engine(path: Path, name: str) -> None:
    """Checks what every exported file must have, for any configuration."""
    config = model_of(name)
    net = config.network
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 10
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 20, "bsm": 1}
    assert [(f.domain, f.name) for f in model.functions] == [SCAN_NODE]
    assert {node.domain for node in model.graph.node} == {"", "bsm"}
    scans = scan_nodes(model)
    assert len(scans) == 2 * net.layers
    for node in scans:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes == {
            "n_heads": net.n_heads,
            "d_state": net.d_state,
            "eps": pytest.approx(net.norm_eps),
            "plugin_namespace": b"bsm",
            "plugin_version": b"1",
        }
    for value, name in ((model.graph.input, "spectrum"), (model.graph.output, "mask")):
        (tensor,) = value
        dims = [d.dim_param or d.dim_value for d in tensor.type.tensor_type.shape.dim]
        assert (tensor.name, dims) == (name, ["batch", 2, "frames", 1025, 2])
        assert tensor.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def assert_parity_is_stored(metadata: Metadata) -> None:
    assert [figure.frames for figure in metadata.parity] == [1, 2, 63, 801]
    for figure in metadata.parity:
        assert 0 < figure.p999 <= 1e-4
        assert 0 < figure.relative_rms <= 1e-5
