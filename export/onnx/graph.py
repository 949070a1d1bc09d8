"""The ONNX graph of the folded network, with the scan as one custom operator."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from dataclasses import replace
from typing import Any

import onnx
import onnxscript
import torch
from onnx import ModelProto, TensorProto, helper

from bsmamba2.export.onnx.scan_function import scan_function, scan_schema
from bsmamba2.formats.metadata import Metadata
from bsmamba2.formats.operator import (
    DOMAIN,
    INPUTS,
    OP_TYPE,
    OPSET,
    PLUGIN_NAMESPACE,
    PLUGIN_VERSION,
    VERSION,
)
from bsmamba2.models.folded import FoldedBSMamba2
from bsmamba2.models.scan_operator import SCAN_OPERATOR

PRECISIONS = {torch.float32: "float32", torch.float16: "float16"}
"""Type of the network's matrices -> the precision in the file's metadata."""
_ONNX_TYPES = {torch.float32: TensorProto.FLOAT, torch.float16: TensorProto.FLOAT16}
IR_VERSION = 10  # not the newest: runtimes refuse files of a newer version than theirs
SPECTRUM, MASK = "spectrum", "mask"


def export_graph(network: FoldedBSMamba2, metadata: Metadata) -> ModelProto:
    """Returns the network as an ONNX model that any ONNX runtime can run.

    Its input `spectrum` and its output `mask` are (batch, channels, frames, bins, 2) float32, with
    batch and frames dynamic. Every block has one `bsm::BiMamba2Scan` node, whose function
    body is in the file. In float16 the matrices, their products and the activations between them
    are float16; both kinds of norm stay float32, as do dt_bias, A and D.

    Args:
        network: The folded network on the CPU, its matrices of a type in PRECISIONS.
        metadata: Written into the file, with the network's precision.
    """
    dtype = network.blocks[0].get_buffer("in_proj").dtype
    metadata = replace(metadata, precision=PRECISIONS[dtype])
    audio = metadata.model.audio
    # Dynamic sizes that differ and exceed 1: torch.export treats a 1 as a constant.
    example = torch.zeros(2, audio.channels, 3, audio.bins, 2)
    free = {0: torch.export.Dim("batch"), 2: torch.export.Dim("frames")}
    # The exporter warns about its own internals, and onnxscript before 0.7 prints.
    quiet = contextlib.redirect_stdout(io.StringIO())
    with warnings.catch_warnings(), quiet, torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=(free,),
            input_names=[SPECTRUM],
            output_names=[MASK],
            opset_version=OPSET,
            custom_translation_table={SCAN_OPERATOR: _scan_node},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _finish(model, metadata, _ONNX_TYPES[dtype])
    onnx.checker.check_model(model, full_check=True)
    return model


def _scan_node(*inputs: Any) -> Any:
    """Translates the scan into one node."""
    tensors, (n_heads, d_state, eps) = inputs[: len(INPUTS)], inputs[len(INPUTS) :]
    opset = onnxscript.values.Opset(DOMAIN, VERSION)
    return onnxscript.values.Op(opset, OP_TYPE, scan_schema())(
        *tensors,
        n_heads=n_heads,
        d_state=d_state,
        eps=eps,
        # TensorRT uses the plugin instead of the function body only if these name its creator.
        plugin_namespace=PLUGIN_NAMESPACE,
        plugin_version=PLUGIN_VERSION,
    )


def _finish(model: ModelProto, metadata: Metadata, dtype: int) -> None:
    """Adds the function body, versions, names of the dynamic sizes, and metadata."""
    model.ir_version = IR_VERSION
    model.functions.append(scan_function(metadata.model.network, dtype))
    del model.opset_import[:]
    model.opset_import.extend(
        [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    )
    audio = metadata.model.audio
    for value in (model.graph.input[0], model.graph.output[0]):
        shape: list[str | int | None] = ["batch", audio.channels, "frames", audio.bins, 2]
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, shape))
    helper.set_model_props(model, metadata.to_pairs())
    model.producer_name = "bsmamba2"
    # Drop the exporter's notes on every node: source lines with paths of this machine.
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    assert sum(node.op_type == OP_TYPE for node in model.graph.node) == (
        2 * metadata.model.network.layers
    )
