"""The function body of `bsm::BiMamba2Scan`: the chunked form in standard ONNX operators.

Attached to the exported file as a function of the operator's own name, it lets any ONNX runtime
compute the scan; TensorRT takes the plugin instead. It is a straight line of matrix products,
without Loop or Scan. It computes in float32; for a half type, its inputs and its result are cast.

Its counterpart in PyTorch is `bsmamba2.models.scan.bimamba2_scan_chunked`. They differ where
another form is faster in ONNX Runtime: step and skip are part of the decay mask, heads come before
chunks, and the states reach their chunks through one product with the decays between chunks.

Shape suffixes: N sequences, L steps, H heads, P channels of a head, S state size, c chunks,
Q steps of a chunk, I = H * P inner channels, W = 2 I + 2 S + H inputs of a direction.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from onnx import FunctionProto, GraphProto, TensorProto, helper
from onnx.defs import OpSchema

from bsmamba2.config.model import NetworkConfig
from bsmamba2.export.onnx.nodes import Nodes
from bsmamba2.formats.operator import (
    ATTRIBUTES,
    DOMAIN,
    INPUTS,
    OP_TYPE,
    OPSET,
    SIGNAL_INPUTS,
    VERSION,
)
from bsmamba2.models.scan import CHUNK


def scan_schema() -> OpSchema:
    """Inputs, output and attributes of the operator, version 1."""
    parameter, kinds = OpSchema.FormalParameter, OpSchema.AttrType
    types = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"]
    return OpSchema(
        OP_TYPE,
        DOMAIN,
        VERSION,
        inputs=[
            parameter(name, "T" if name in SIGNAL_INPUTS else "tensor(float)") for name in INPUTS
        ],
        outputs=[parameter("y", "T")],
        type_constraints=[("T", types, "Type of the signal and of the convolution.")],
        attributes=[
            OpSchema.Attribute(name, kind, required=True)
            for name, kind in zip(
                ATTRIBUTES,
                (kinds.INT, kinds.INT, kinds.FLOAT, kinds.STRING, kinds.STRING),
                strict=True,
            )
        ],
    )


class _Signal(NamedTuple):
    """The operator's inputs of type T, as float32."""

    zxbcdt: str
    conv_weight: str
    conv_bias: str


class _Scan(NamedTuple):
    """Inputs of one direction's scan, between convolution and gate."""

    x_NIL: str
    B_NSL: str
    C_NSL: str
    dt_NHL: str
    A_H1: str
    D_H: str
    length: str
    reverse: int


def scan_function(net: NetworkConfig, dtype: int = TensorProto.FLOAT) -> FunctionProto:
    """The function body, written for the sizes of one network and one type.

    Sizes are literals because `Conv` takes its number of groups only as one; the length and the
    number of sequences are dynamic. `eps` is read from the node.

    Args:
        net: The network.
        dtype: T in `scan_schema`, the type of signal and convolution: TensorProto.FLOAT or FLOAT16.
    """
    nodes = Nodes()
    signal = _Signal(*SIGNAL_INPUTS)
    if dtype != TensorProto.FLOAT:
        signal = _Signal(*(nodes("Cast", name, to=TensorProto.FLOAT) for name in signal))
    outputs = [_direction(nodes, net, signal, reverse) for reverse in (0, 1)]
    y = nodes.reshape(nodes("Concat", *outputs, axis=2), 0, 0, 2, net.d_inner)
    # Pow .. Mul is the pattern that ONNX Runtime fuses into one RMSNorm kernel.
    mean = nodes("ReduceMean", nodes("Pow", y, nodes.scalar(2.0)), nodes.ints(-1))
    rms = nodes("Sqrt", nodes("Add", mean, nodes.attribute("eps")))
    y = nodes("Mul", nodes("Div", y, rms), nodes.tensor(np.ones(net.d_inner, np.float32)))
    y = nodes.reshape(y, 0, 0, 2 * net.d_inner)
    if dtype != TensorProto.FLOAT:
        y = nodes("Cast", y, to=dtype)
    nodes.protos[-1].output[0] = "y"
    return helper.make_function(
        DOMAIN,
        OP_TYPE,
        INPUTS,
        ["y"],
        nodes.protos,
        [helper.make_opsetid("", OPSET)],
        attributes=ATTRIBUTES,
    )


def _direction(nodes: Nodes, net: NetworkConfig, signal: _Signal, reverse: int) -> str:
    """Gated output (N, L, I) of one direction, not yet normalised."""
    start = reverse * net.d_in_proj
    xbc_start = start + net.d_inner
    dt_start = xbc_start + net.d_xbc
    z_NLI = nodes.slice(signal.zxbcdt, start, xbc_start, 2)
    dt_NLH = nodes.slice(signal.zxbcdt, dt_start, start + net.d_in_proj, 2)
    dt_NLH = nodes("Softplus", nodes("Add", dt_NLH, _parameter(nodes, "dt_bias", reverse)))
    # x and [B, C] are convolved separately: splitting them afterwards would copy x once more.
    x_NIL = _convolve(nodes, net, signal, xbc_start, 0, net.d_inner, reverse)
    bc = _convolve(nodes, net, signal, xbc_start, net.d_inner, net.d_xbc, reverse)
    B_NSL, C_NSL = nodes.many("Split", [bc], 2, axis=1, num_outputs=2)
    scan = _Scan(
        x_NIL,
        B_NSL,
        C_NSL,
        nodes("Transpose", dt_NLH, perm=[0, 2, 1]),
        nodes.unsqueeze(_parameter(nodes, "A", reverse), 1),
        _parameter(nodes, "D", reverse),
        nodes.dim(signal.zxbcdt, 1),
        reverse,
    )
    fits = nodes("LessOrEqual", nodes("Squeeze", scan.length), nodes.scalar(CHUNK))
    y_NLHP = nodes(
        "If",
        fits,
        then_branch=_one_chunk(nodes.branch(), net, scan),
        else_branch=_many_chunks(nodes.branch(), net, scan),
    )
    return nodes("Mul", nodes.reshape(y_NLHP, 0, 0, net.d_inner), nodes.silu(z_NLI))


def _parameter(nodes: Nodes, name: str, reverse: int) -> str:
    """One direction of a parameter."""
    return nodes("Gather", name, nodes.scalar(reverse), axis=0)


def _convolve(
    nodes: Nodes,
    net: NetworkConfig,
    signal: _Signal,
    offset: int,
    start: int,
    end: int,
    reverse: int,
) -> str:
    """SiLU of the depthwise convolution of some channels, (N, channels, L).

    The backward direction looks ahead: taps reversed, padding at the end.
    """
    x_NCL = nodes(
        "Transpose", nodes.slice(signal.zxbcdt, offset + start, offset + end, 2), perm=[0, 2, 1]
    )
    weight = nodes.slice(_parameter(nodes, signal.conv_weight, reverse), start, end, 0)
    if reverse:
        backwards = (nodes.ints(-1), nodes.ints(-net.d_conv - 1), nodes.ints(1), nodes.ints(-1))
        weight = nodes("Slice", weight, *backwards)
    bias = nodes.slice(_parameter(nodes, signal.conv_bias, reverse), start, end, 0)
    history = net.d_conv - 1
    convolved = nodes(
        "Conv",
        x_NCL,
        nodes.unsqueeze(weight, 1),
        bias,
        group=end - start,
        kernel_shape=[net.d_conv],
        pads=[0, history] if reverse else [history, 0],
    )
    return nodes.silu(convolved)


def _heads(nodes: Nodes, net: NetworkConfig, x_NIL: str) -> str:
    """(N, H, L, P) from (N, I, L)."""
    x_NHPL = nodes.reshape(x_NIL, 0, net.n_heads, net.headdim, -1)
    return nodes("Transpose", x_NHPL, perm=[0, 1, 3, 2])


def _one_chunk(nodes: Nodes, net: NetworkConfig, scan: _Scan) -> GraphProto:
    """Branch for at most CHUNK steps, which needs no state."""
    cs_NHL = _cumsum(nodes, nodes("Mul", scan.dt_NHL, scan.A_H1), 2, scan.reverse)
    CB_NLL = nodes("MatMul", nodes("Transpose", scan.C_NSL, perm=[0, 2, 1]), scan.B_NSL)
    mask = _mask(nodes, net, CB_NLL, cs_NHL, scan.dt_NHL, scan, axis=2)
    y_NHLP = nodes("MatMul", mask, _heads(nodes, net, scan.x_NIL))
    return nodes.graph("one_chunk", nodes("Transpose", y_NHLP, perm=[0, 2, 1, 3]))


def _many_chunks(nodes: Nodes, net: NetworkConfig, scan: _Scan) -> GraphProto:
    """Branch for more: chunks of CHUNK steps, padded with steps of dt = 0, which keep the state."""
    count = nodes("Div", nodes("Add", scan.length, nodes.ints(CHUNK - 1)), nodes.ints(CHUNK))
    missing = nodes("Sub", nodes("Mul", count, nodes.ints(CHUNK)), scan.length)
    pads = nodes("Concat", nodes.ints(0, 0, 0, 0, 0), missing, axis=0)
    x, B, C, dt = (nodes("Pad", t, pads) for t in (scan.x_NIL, scan.B_NSL, scan.C_NSL, scan.dt_NHL))
    x_NHcQP = nodes.reshape(_heads(nodes, net, x), 0, 0, -1, CHUNK, net.headdim)
    B_NcSQ, C_NcQS = (
        nodes("Transpose", nodes.reshape(t, 0, net.d_state, -1, CHUNK), perm=perm)
        for t, perm in ((B, [0, 2, 1, 3]), (C, [0, 2, 3, 1]))
    )
    dt_NHcQ = nodes.reshape(dt, 0, 0, -1, CHUNK)
    A_H11 = nodes.unsqueeze(scan.A_H1, 2)
    cs_NHcQ = _cumsum(nodes, nodes("Mul", dt_NHcQ, A_H11), 3, scan.reverse)

    mask = _mask(nodes, net, nodes("MatMul", C_NcQS, B_NcSQ), cs_NHcQ, dt_NHcQ, scan, axis=3)
    within = nodes("MatMul", mask, x_NHcQP)
    h_NHcSP = _states(nodes, net, x_NHcQP, B_NcSQ, cs_NHcQ, dt_NHcQ, scan.reverse)
    between = nodes("MatMul", nodes.unsqueeze(C_NcQS, 1), h_NHcSP)
    between = nodes("Mul", between, nodes.unsqueeze(nodes("Exp", cs_NHcQ), 4))
    y_NHLP = nodes.reshape(nodes("Add", within, between), 0, 0, -1, net.headdim)
    y_NLHP = nodes("Transpose", y_NHLP, perm=[0, 2, 1, 3])
    return nodes.graph("many_chunks", nodes.slice(y_NLHP, 0, scan.length, 1))


def _cumsum(nodes: Nodes, tensor: str, axis: int, reverse: int, exclusive: int = 0) -> str:
    return nodes("CumSum", tensor, nodes.scalar(axis), reverse=reverse, exclusive=exclusive)


def _mask(
    nodes: Nodes, net: NetworkConfig, CB: str, cs: str, dt: str, scan: _Scan, axis: int
) -> str:
    """((C B^T) o decay) dt + D, the matrix that maps x to y inside a chunk.

    `cs` and `dt` have heads as their second axis and steps as `axis`; C B^T, the same for all
    heads, has no head axis.
    """
    triangle = nodes.unsqueeze(nodes("Trilu", CB, upper=scan.reverse), 1)
    log = nodes("Sub", nodes.unsqueeze(cs, axis + 1), nodes.unsqueeze(cs, axis))
    mask = nodes("Mul", nodes.decay(log), triangle)
    mask = nodes("Mul", mask, nodes.unsqueeze(dt, axis))
    steps = nodes.dim(cs, axis)
    # Not EyeLike, which TensorRT's parser refuses for dynamic sizes.
    ones = nodes("Expand", nodes.scalar(1.0), nodes("Concat", steps, steps, axis=0))
    identity = nodes("Trilu", nodes("Trilu", ones, upper=0), upper=1)
    skip = nodes.reshape(scan.D_H, net.n_heads, *([1] * (axis - 1)), 1)
    return nodes("Add", mask, nodes("Mul", identity, skip))


def _states(
    nodes: Nodes, net: NetworkConfig, x: str, B_NcSQ: str, cs: str, dt: str, reverse: int
) -> str:
    """The state (N, H, c, S, P) that enters each chunk: all earlier chunks' states, decayed.

    Chunk i receives the state of chunk j times exp(sum of the log decays of the chunks between).
    """
    edge = 0 if reverse else CHUNK - 1
    last_NHc1 = nodes.slice(cs, edge, edge + 1, 3)
    weight = nodes("Mul", dt, nodes.decay(nodes("Sub", last_NHc1, cs)))
    weighted = nodes("Mul", x, nodes.unsqueeze(weight, 4))
    feed = nodes("MatMul", nodes.unsqueeze(B_NcSQ, 1), weighted)

    # The sum over the chunks between, row by row: the rounding of a difference of two long sums
    # would grow with the length.
    ones = nodes("Expand", nodes.scalar(1.0), nodes.dim(last_NHc1, 2))
    diagonal = nodes.scalar(1 if reverse else -1)
    later = nodes("Trilu", nodes("Mul", last_NHc1, ones), diagonal, upper=reverse)
    between = _cumsum(nodes, later, 2, reverse, exclusive=1)
    carry = nodes("Trilu", nodes("Exp", between), diagonal, upper=reverse)
    h = nodes("MatMul", carry, nodes.reshape(feed, 0, 0, 0, net.d_state * net.headdim))
    return nodes.reshape(h, 0, 0, 0, net.d_state, net.headdim)
