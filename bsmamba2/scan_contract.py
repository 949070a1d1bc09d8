"""The contract of the one custom operator, `bsm::BiMamba2Scan`, which all its forms agree on.

The C and C++ sources in `plugins` have constants of their own; a test holds them equal to these.
"""

from __future__ import annotations

DOMAIN, OP_TYPE, VERSION = "bsm", "BiMamba2Scan", 1
"""Of the ONNX operator."""
NAME = f"{DOMAIN}::{OP_TYPE}"
"""For people."""
SCAN_NODE = (DOMAIN, OP_TYPE)
"""Of a node in an ONNX file."""
OPSET = 20
"""ONNX's own operators, those of the exported graph and of the operator's portable body."""

SIGNAL_INPUTS = ("zxbcdt", "conv_weight", "conv_bias")
"""Inputs of the network's type."""
INPUTS = (*SIGNAL_INPUTS, "dt_bias", "A", "D")
"""All inputs, in order; the last three are float32 whatever the network's type is."""
ATTRIBUTES = ("n_heads", "d_state", "eps", "plugin_namespace", "plugin_version")
"""Of a node. TensorRT takes the plugin instead of the body where the last two name its creator."""

PLUGIN_NAMESPACE, PLUGIN_VERSION = "bsm", "1"
"""Of TensorRT's creator, whose name is OP_TYPE."""
