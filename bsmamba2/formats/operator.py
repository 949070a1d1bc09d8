"""The contract of the custom operator, `bsm::BiMamba2Scan`, that all its implementations follow.

The C and C++ sources in `plugins` repeat these constants; a test checks that they agree.
"""

from __future__ import annotations

DOMAIN, OP_TYPE, VERSION = "bsm", "BiMamba2Scan", 1
"""Domain, type and version of the ONNX operator."""
NAME = f"{DOMAIN}::{OP_TYPE}"
"""The operator's name in messages."""
SCAN_NODE = (DOMAIN, OP_TYPE)
"""Domain and type of the operator's nodes in an ONNX file."""
BODY_NODE = ("", "Softplus")
"""Domain and type of a node that only the operator's function body has, once per direction."""
OPSET = 20
"""Version of ONNX's own operators in the exported graph and in the operator's function body."""

SIGNAL_INPUTS = ("zxbcdt", "conv_weight", "conv_bias")
"""Inputs that have the network's data type."""
INPUTS = (*SIGNAL_INPUTS, "dt_bias", "A", "D")
"""All inputs, in order; the last three are always float32."""
ATTRIBUTES = ("n_heads", "d_state", "eps", "plugin_namespace", "plugin_version")
"""Attributes of a node; the last two name the plugin creator that TensorRT uses."""

PLUGIN_NAMESPACE, PLUGIN_VERSION = "bsm", "1"
"""Namespace and version of TensorRT's plugin creator, whose name is OP_TYPE."""
