"""An exported graph in float16, which the export itself does not write yet (issue 5)."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bsmamba2.export.scan_function import OP_TYPE


def to_float16(model: ModelProto) -> None:
    """All of the graph but its input, its output and the scan's dt_bias, A and D.

    For building, not for listening: norms belong in float32.
    """
    graph = model.graph
    scans = [node for node in graph.node if node.op_type == OP_TYPE]
    kept = {name for scan in scans for name in scan.input[3:]}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    (spectrum,), (mask,) = graph.input, graph.output
    for node in graph.node:
        assert node.op_type not in ("Cast", "Constant")
        node.input[:] = [f"half_{name}" if name == spectrum.name else name for name in node.input]
        node.output[:] = [f"half_{name}" if name == mask.name else name for name in node.output]
    to, back = TensorProto.FLOAT16, TensorProto.FLOAT
    names = (spectrum.name, mask.name)
    first = helper.make_node("Cast", [names[0]], [f"half_{names[0]}"], "first_cast", to=to)
    last = helper.make_node("Cast", [f"half_{names[1]}"], [names[1]], "last_cast", to=back)
    graph.node.insert(0, first)
    graph.node.append(last)
    del graph.value_info[:]
