"""Laws of the ONNX function body: in plain ONNX Runtime it agrees with the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from foreign_files import model_of
from onnx import ModelProto, NodeProto, TensorProto, helper
from tolerances import assert_close, extreme_slack, relative_rms
from torch import Tensor

from bench.common.scans import (
    EXTREMES,
    FULL,
    LENGTHS,
    ODD,
    ONE_HEAD,
    ScanInputs,
    extreme_inputs,
    head_sizes,
    scan_inputs,
)
from bsmamba2.export.onnx.scan_function import scan_function, scan_schema
from bsmamba2.formats.operator import ATTRIBUTES, INPUTS
from bsmamba2.models.scan import Sizes, bimamba2_scan_reference

NUMBERS = {"plugin_namespace": "bsm", "plugin_version": "1"}


def one_node_model(sizes: Sizes, taps: int = 4, eps: float = 1e-5) -> ModelProto:
    """The operator alone, with free batch and length and its body attached."""
    net = replace(
        model_of("tiny").network,
        d_model=sizes.d_inner,
        expand=1,
        headdim=sizes.headdim,
        d_state=sizes.d_state,
        d_conv=taps,
    )
    attributes = {"n_heads": sizes.n_heads, "d_state": sizes.d_state, "eps": eps, **NUMBERS}
    node = helper.make_node("BiMamba2Scan", INPUTS, ["y"], domain="bsm", **attributes)
    value = partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    inputs = [
        value("zxbcdt", shape=["N", "L", 2 * sizes.width]),
        value("conv_weight", shape=[2, sizes.d_xbc, taps]),
        value("conv_bias", shape=[2, sizes.d_xbc]),
        *(value(name, shape=[2, sizes.n_heads]) for name in ("dt_bias", "A", "D")),
    ]
    output = value("y", shape=["N", "L", 2 * sizes.d_inner])
    return helper.make_model(
        helper.make_graph([node], "one_scan", inputs, [output]),
        functions=[scan_function(net)],
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("bsm", 1)],
        ir_version=10,
    )


@cache
def session(sizes: Sizes, taps: int = 4, eps: float = 1e-5) -> onnxruntime.InferenceSession:
    model = one_node_model(sizes, taps, eps)
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def body(inputs: ScanInputs) -> np.ndarray:
    """The scan by the function body, float32."""
    taps = inputs.conv_weight.shape[-1]
    feeds = {name: t.numpy() for name, t in zip(INPUTS, inputs.tensors, strict=True)}
    return np.asarray(session(inputs.sizes, taps, inputs.eps).run(None, feeds)[0])


def reference(inputs: ScanInputs) -> Tensor:
    return bimamba2_scan_reference(*inputs.arguments, **inputs.attributes)


@pytest.mark.parametrize("L", LENGTHS)
def test_body_is_the_reference(L: int):
    for N in (1, 2, 5) if L < 801 else (2,):
        inputs = scan_inputs(N, L).to(torch.float32)
        y = body(inputs)
        assert y.dtype == np.float32
        assert_close(y, reference(inputs), "float32")


@pytest.mark.parametrize("L", [1, 62, 65, 801])
def test_body_is_the_reference_at_full_size(L: int):
    inputs = scan_inputs(1, L, FULL).to(torch.float32)
    assert_close(body(inputs), reference(inputs), "float32")


@pytest.mark.parametrize("L", [1, 5, 130])
@pytest.mark.parametrize(("sizes", "taps"), [(ONE_HEAD, 4), (head_sizes(2, 1, 1), 1), (ODD, 2)])
def test_body_is_the_reference_at_other_sizes(L: int, sizes: Sizes, taps: int):
    inputs = scan_inputs(2, L, sizes, taps=taps).to(torch.float32)
    assert_close(body(inputs), reference(inputs), "float32")


@pytest.mark.parametrize("L", [63, 64, 260])
@pytest.mark.parametrize("kind", EXTREMES)
def test_body_is_the_reference_on_extremes(kind: str, L: int):
    inputs = extreme_inputs(kind, 2, L).to(torch.float32)
    assert_close(body(inputs), reference(inputs), "float32", extreme_slack(kind, "float32"))


@pytest.mark.parametrize("kind", ["decay stops", "no decay"])
def test_error_of_the_body_does_not_grow_with_the_length(kind: str):
    errors = []
    for L in (128, 3000):
        inputs = extreme_inputs(kind, 2, L).to(torch.float32)
        errors.append(relative_rms(body(inputs), reference(inputs)))
    assert errors[1] < 3 * errors[0]


@pytest.mark.parametrize("L", [1, 65])
def test_silence_gives_zero(L: int):
    inputs = scan_inputs(2, L).to(torch.float32)
    assert not body(replace(inputs, zxbcdt=torch.zeros_like(inputs.zxbcdt))).any()


@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_eps_is_the_nodes(eps: float):
    inputs = replace(scan_inputs(2, 5), eps=eps)
    inputs = replace(inputs, zxbcdt=inputs.zxbcdt / 10).to(torch.float32)
    assert_close(body(inputs), reference(inputs), "float32")


@pytest.mark.parametrize("L", [62, 130])
def test_sequences_do_not_touch_each_other(L: int):
    inputs = scan_inputs(3, L).to(torch.float32)
    alone = [body(replace(inputs, zxbcdt=x[None])) for x in inputs.zxbcdt]
    assert_close(body(inputs), np.concatenate(alone), "float32")


# --- what the body is made of ---


def all_nodes(nodes: Sequence[NodeProto]) -> Iterator[NodeProto]:
    """The nodes, and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from all_nodes(attribute.g.node)
            for graph in attribute.graphs:
                yield from all_nodes(graph.node)


def test_body_is_made_of_standard_operators_without_loops():
    (function,) = one_node_model(ODD).functions
    nodes = list(all_nodes(function.node))
    assert {node.domain for node in nodes} == {""}
    kinds = {node.op_type for node in nodes}
    assert not {"Loop", "Scan", "SequenceMap"} & kinds
    assert {"MatMul", "If"} <= kinds  # the If: one chunk, or many
    assert [(opset.domain, opset.version) for opset in function.opset_import] == [("", 20)]


def test_function_declares_what_the_operator_has():
    (function,) = one_node_model(ODD).functions
    assert (function.domain, function.name) == ("bsm", "BiMamba2Scan")
    assert tuple(function.input) == INPUTS
    assert list(function.output) == ["y"]
    declared = set(function.attribute) | {a.name for a in function.attribute_proto}
    assert declared == set(ATTRIBUTES)
    assert set(ATTRIBUTES) == {"n_heads", "d_state", "eps", "plugin_namespace", "plugin_version"}
    schema = scan_schema()
    assert (schema.domain, schema.name, schema.since_version) == ("bsm", "BiMamba2Scan", 1)
    assert tuple(value.name for value in schema.inputs) == INPUTS
    assert set(schema.attributes) == declared


def test_names_are_assigned_once():
    """In all nodes, those of subgraphs included: some runtimes refuse shadowed names."""
    names = [
        name for node in all_nodes(one_node_model(ODD).functions[0].node) for name in node.output
    ]
    assert len(names) == len(set(names))
