"""The contract of the one custom operator, `bsm::BiMamba2Scan`, which all its forms agree on.

The C and C++ sources in `plugins` have constants of their own; a test holds them equal to these.
"""

from __future__ import annotations

DOMAIN, OP_TYPE, VERSION = "bsm", "BiMamba2Scan", 1
"""Domain, type and version of the ONNX operator."""
NAME = f"{DOMAIN}::{OP_TYPE}"
"""Its name in messages."""
SCAN_NODE = (DOMAIN, OP_TYPE)
"""Domain and type of its nodes in an ONNX file."""
OPSET = 20
"""Version of ONNX's own operators in the exported graph and in the operator's portable body."""

SIGNAL_INPUTS = ("zxbcdt", "conv_weight", "conv_bias")
"""Inputs of the network's type."""
INPUTS = (*SIGNAL_INPUTS, "dt_bias", "A", "D")
"""All inputs, in order; the last three are float32 whatever the network's type is."""
ATTRIBUTES = ("n_heads", "d_state", "eps", "plugin_namespace", "plugin_version")
"""Attributes of a node; the last two name the creator of the plugin that TensorRT takes."""

PLUGIN_NAMESPACE, PLUGIN_VERSION = "bsm", "1"
"""Namespace and version of TensorRT's plugin creator, whose name is OP_TYPE."""
