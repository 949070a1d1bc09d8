"""Quantisation of an exported graph's large products to int8, for CPUs.

Weights become int8 with one scale per column and only 7 bits: according to ONNX Runtime's
documentation, x86 without VNNI adds pairs of products in 16 bits, where 255 * 127 twice would
saturate. Activations are quantised where they are used, to uint8 around 128 with one scale per row:
rows are normalised, but their peaks differ so much that one scale for all of them would triple the
error to save a sixth of the time.

Every product with a constant matrix becomes int8, except two kinds that make up a hundredth of the
work: the first products after the spectrum, which are the band split, and those with a square
matrix, which are the residuals of the blocks. They are recognised by the graph alone, not by the
names of its tensors.

Only standard operators are used, so the file runs wherever the float32 one does.

Alternatives in ONNX Runtime were measured (1.32, AVX-512 VNNI): DynamicQuantizeLinear is a sixth to
a third faster at two to three times the error; com.microsoft.MatMulNBits is half as fast, and does
not take a batch of matrices, which the masks need.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bsmamba2.errors import ExportError

_PRODUCTS = ("MatMul", "Gemm")
_LEVELS = 127
_WEIGHT_LEVELS = 63
_SUFFIXES = ("int8", "scale")


def quantise(model: ModelProto) -> None:
    """Replaces the large products by int8 ones, in place.

    Args:
        model: A float32 graph from `export_graph`.

    Raises:
        ExportError: The graph has no such product.
    """
    graph = model.graph
    wanted = big_matrices(graph)
    if not wanted:
        raise ExportError("This network has no matrix product to quantise to int8: use float32.")
    matrices = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.name in wanted
    }
    kept = [tensor for tensor in graph.initializer if tensor.name not in matrices]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(_constants())
    for name, matrix in matrices.items():
        graph.initializer.extend(_quantised(name, matrix))
    rows: dict[str, tuple[str, str]] = {}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type in _PRODUCTS and node.input[1] in matrices:
            nodes.extend(_product(node, node.input[1], rows))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]


def big_matrices(graph: GraphProto) -> set[str]:
    """Names of the constant matrices whose products become int8."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    multiplied = set[str]()  # values downstream of a product with a constant matrix
    found = set[str]()
    for node in graph.node:  # ONNX requires topological order
        shape = shapes.get(node.input[1], ()) if node.op_type in _PRODUCTS else ()
        is_first = multiplied.isdisjoint(node.input)
        if len(shape) > 1 or not is_first:
            multiplied.update(node.output)
        is_square = len(shape) == 2 and shape[0] == shape[1]
        if len(shape) > 1 and not is_first and not is_square:
            found.add(node.input[1])
    return found


def _constants() -> Iterator[TensorProto]:
    values: dict[str, NDArray[Any]] = {
        "int8.last_axis": np.array([-1], np.int64),
        "int8.least": np.array(1e-30, np.float32),  # a silent row stays zero
        "int8.step": np.array(1 / _LEVELS, np.float32),
        "int8.zero": np.array(128, np.uint8),
    }
    for name, value in values.items():
        yield numpy_helper.from_array(value, name)


def _quantised(name: str, matrix: NDArray[Any]) -> Iterator[TensorProto]:
    """A matrix (..., K, N) as int8, and the scale of each column's integer sums."""
    scale = np.maximum(np.abs(matrix).max(axis=-2, keepdims=True), 1e-30) / _WEIGHT_LEVELS
    values = np.rint(matrix / scale).astype(np.int8)
    for suffix, array in zip(_SUFFIXES, (values, scale / _LEVELS), strict=True):
        yield numpy_helper.from_array(np.asarray(array), f"{name}.{suffix}")


def _product(node: NodeProto, matrix: str, rows: dict[str, tuple[str, str]]) -> Iterator[NodeProto]:
    """x @ matrix in int8, plus the third input for a Gemm."""
    source, result = node.input[0], node.output[0]
    if source not in rows:
        yield from _quantised_rows(source)
        rows[source] = (f"{source}.uint8", f"{source}.peak")
    values, peak = rows[source]
    weight, scale = (f"{matrix}.{suffix}" for suffix in _SUFFIXES)
    product = f"{result}.product" if node.op_type == "Gemm" else result
    yield helper.make_node("MatMulInteger", [values, weight, "int8.zero"], [f"{result}.sums"])
    yield helper.make_node("Cast", [f"{result}.sums"], [f"{result}.float"], to=TensorProto.FLOAT)
    yield helper.make_node("Mul", [peak, scale], [f"{result}.scale"])
    yield helper.make_node("Mul", [f"{result}.float", f"{result}.scale"], [product])
    if node.op_type == "Gemm":
        yield helper.make_node("Add", [product, node.input[2]], [result])


def _quantised_rows(source: str) -> Iterator[NodeProto]:
    """x / peak in 127 steps on either side of 128, with peak = max |x| of a row."""
    high, low, negated, peak, unit, values = (
        f"{source}.{name}" for name in ("high", "low", "negated", "peak", "unit", "uint8")
    )
    yield helper.make_node("ReduceMax", [source, "int8.last_axis"], [high])
    yield helper.make_node("ReduceMin", [source, "int8.last_axis"], [low])
    yield helper.make_node("Neg", [low], [negated])
    yield helper.make_node("Max", [high, negated, "int8.least"], [peak])
    yield helper.make_node("Div", [source, peak], [unit])
    yield helper.make_node("QuantizeLinear", [unit, "int8.step", "int8.zero"], [values])
