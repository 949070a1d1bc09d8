"""A list of ONNX nodes that grows by calls: `y = nodes("MatMul", a, b)`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper


class Nodes:
    """Nodes in topological order; a call appends one and returns the name of its output."""

    def __init__(self, names: Iterator[int] | None = None) -> None:
        self.protos: list[NodeProto] = []
        self._names = itertools.count() if names is None else names
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Appends a node with one output; returns its name."""
        return self.many(op, inputs, 1, **attributes)[0]

    def many(self, op: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """Appends a node with several outputs; returns their names."""
        names = [f"{op}_{next(self._names)}" for _ in range(outputs)]
        self.protos.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def branch(self) -> Nodes:
        """An empty list for a subgraph, whose names differ from those outside."""
        return Nodes(self._names)

    def graph(self, name: str, output: str) -> GraphProto:
        """The nodes as a subgraph without inputs; it uses the outer graph's names directly."""
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        return helper.make_graph(self.protos, name, [], [result])

    def ints(self, *values: int) -> str:
        """A constant int64 vector."""
        return self.tensor(np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """A constant scalar, float32 or, for an int, int64."""
        return self.tensor(np.array(value, np.int64 if isinstance(value, int) else np.float32))

    def attribute(self, name: str) -> str:
        """The value of a float attribute of the function whose body these nodes are."""
        node = helper.make_node("Constant", [], [f"{name}_{next(self._names)}"])
        node.attribute.append(
            AttributeProto(name="value_float", ref_attr_name=name, type=AttributeProto.FLOAT)
        )
        self.protos.append(node)
        return str(node.output[0])

    def dim(self, tensor: str, axis: int) -> str:
        """The size of one axis, as a vector with one element."""
        return self("Shape", tensor, start=axis, end=axis + 1)

    def slice(self, tensor: str, start: int, end: int | str, axis: int) -> str:
        """A range of one axis."""
        stop = self.ints(end) if isinstance(end, int) else end
        return self("Slice", tensor, self.ints(start), stop, self.ints(axis))

    def reshape(self, tensor: str, *dims: int) -> str:
        """The tensor with other dimensions: 0 keeps one, -1 is inferred."""
        return self("Reshape", tensor, self.ints(*dims))

    def unsqueeze(self, tensor: str, axis: int) -> str:
        """A new axis of size 1."""
        return self("Unsqueeze", tensor, self.ints(axis))

    def silu(self, tensor: str) -> str:
        """x * sigmoid(x)."""
        return self("Mul", tensor, self("Sigmoid", tensor))

    def decay(self, log: str) -> str:
        """exp(min(log, 0)): rounding can make a log decay slightly positive."""
        return self("Exp", self("Clip", log, "", self.scalar(0.0)))

    def tensor(self, array: np.ndarray[Any, Any]) -> str:
        """A constant."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self("Constant", value=numpy_helper.from_array(array))
        return self._constants[key]
