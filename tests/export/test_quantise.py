"""Laws of int8 products: small errors of their own, none in what stays float32."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bsmamba2.errors import ExportError
from bsmamba2.export.onnx.quantise import quantise
from bsmamba2.runtime.engines import default_engine_path

OUR_NAMES = re.compile(r"in_proj|out_proj|masks\.(hidden|(value|gate)_\d+)")
"""Names of the matrices to quantise, as the exporter derives them from ours."""


def product_model(matrix: np.ndarray, op: str) -> ModelProto:
    """x @ 1 @ matrix, for Gemm plus c: only the second product is quantised."""
    K, N = matrix.shape[-2:]
    rows = ["bands", "M"] if matrix.ndim == 3 else ["M"]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*rows, K])]
    names = ["same", "matrix"]
    if op == "Gemm":
        inputs.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, ["M", N]))
        names.append("c")
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [*rows, N])
    nodes = [helper.make_node("MatMul", ["x", "one"], ["same"]), helper.make_node(op, names, ["y"])]
    weights = [
        numpy_helper.from_array(array.astype(np.float32), name)
        for name, array in (("one", np.eye(K)), ("matrix", matrix))
    ]
    graph = helper.make_graph(nodes, "product", inputs, [output], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: ModelProto, **feeds: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {k: v.astype(np.float32) for k, v in feeds.items()})[0])


def error(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((actual - expected) ** 2) / np.mean(expected**2)))


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
@pytest.mark.parametrize("K", [3, 256])
def test_product_is_the_float64_one_to_two_hundredths(op: str, K: int):
    random = np.random.default_rng(0)
    x, w, c = (random.standard_normal(shape) for shape in ((50, K), (K, 40), (50, 40)))
    model = product_model(w, op)
    quantise(model)
    feeds, expected = ({"x": x, "c": c}, x @ w + c) if op == "Gemm" else ({"x": x}, x @ w)
    # Steps of peak / 63 and peak / 127, peaks about 3 sigma: 0.014 and 0.007 together.
    assert error(run(model, **feeds), expected) < 0.018


@pytest.mark.parametrize("shape", [(256, 40), (3, 64, 7)])
def test_pairs_of_products_fit_16_bits(shape: tuple[int, ...]):
    """CPUs with AVX2 but no VNNI saturate there (vpmaddubsw)."""
    model = product_model(np.random.default_rng(0).standard_normal(shape), "MatMul")
    quantise(model)
    (weight,) = [t for t in model.graph.initializer if t.data_type == TensorProto.INT8]
    steps = np.abs(numpy_helper.to_array(weight).astype(int))
    assert steps.max() == 63
    assert 2 * 255 * steps.max() < 1 << 15


def test_batch_of_matrices_has_a_scale_a_column_of_each():
    random = np.random.default_rng(0)
    w = random.standard_normal((5, 64, 7)) * 10.0 ** random.integers(-3, 4, (5, 1, 7))
    x = random.standard_normal((5, 30, 64))
    model = product_model(w, "MatMul")
    quantise(model)
    y, expected = run(model, x=x), x @ w
    for band in range(5):
        for column in range(7):
            assert error(y[band, :, column], expected[band, :, column]) < 0.03


def test_a_loud_row_does_not_coarsen_a_quiet_one():
    random = np.random.default_rng(0)
    w = random.standard_normal((256, 9))
    x = random.standard_normal((2, 256)) * [[1.0], [1e-4]]
    model = product_model(w, "MatMul")
    quantise(model)
    y, expected = run(model, x=x), x @ w
    assert error(y[1], expected[1]) < 0.02


@pytest.mark.parametrize("scale", [0.0, 1e-40])
def test_silent_rows_give_zero(scale: float):
    model = product_model(np.ones((16, 4)), "MatMul")
    quantise(model)
    y = run(model, x=np.full((3, 16), scale))
    assert np.isfinite(y).all()
    assert np.abs(y).max() <= 16 * scale * 1.01


def test_weights_are_int8_and_all_of_it_is_standard(tiny_onnx: Path):
    model = onnx.load(tiny_onnx)
    before = {tensor.name: tensor for tensor in model.graph.initializer}
    quantise(model)
    onnx.checker.check_model(model, full_check=True)
    after = {tensor.name: tensor for tensor in model.graph.initializer}
    big = {name.removesuffix(".int8") for name in after if name.endswith(".int8")}
    blocks = {f"blocks.{i}.{name}" for i in range(4) for name in ("in_proj", "out_proj")}
    masks = {f"masks.{part}_{i}" for part in ("value", "gate") for i in range(7)}
    assert big == blocks | masks | {"masks.hidden"}
    assert all(after[f"{name}.int8"].data_type == TensorProto.INT8 for name in big)
    assert all(after[name] == before[name] for name in before if name not in big)
    assert {node.domain for node in model.graph.node} == {"", "bsm"}
    counts = [node.op_type for node in model.graph.node]
    assert counts.count("MatMulInteger") == len(big)
    assert counts.count("QuantizeLinear") == 2 * 4 + 1 + 7  # value and gate share their rows


def quantised_matrices(model: ModelProto) -> set[str]:
    model = copy.deepcopy(model)
    quantise(model)
    weights = (node.input[1] for node in model.graph.node if node.op_type == "MatMulInteger")
    return {name.removesuffix(".int8") for name in weights}


def renamed(model: ModelProto) -> tuple[ModelProto, dict[str, str]]:
    """The model with a new name for every node and value, and the map of names."""
    model = copy.deepcopy(model)
    graph = model.graph
    values = [tensor.name for tensor in graph.initializer]
    values += [name for node in graph.node for name in node.output if name]
    names = {name: f"v{number}" for number, name in enumerate(values)}
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    for number, node in enumerate(graph.node):
        node.name = f"n{number}"
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return model, names


def test_the_graph_not_its_names_decides_what_is_quantised():
    model = onnx.load(default_engine_path())
    found = quantised_matrices(model)
    matrices = {t.name for t in model.graph.initializer if OUR_NAMES.search(t.name)}
    assert found == {name for name in matrices if "bias" not in name}
    assert len(found) == 25
    other, names = renamed(model)
    assert quantised_matrices(other) == {names[name] for name in found}


def test_a_graph_without_such_products_is_refused():
    model = product_model(np.ones((8, 8)), "MatMul")
    with pytest.raises(ExportError, match="no matrix product to quantise"):
        quantise(model)
