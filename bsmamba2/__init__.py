"""BSMamba2: a band-split Mamba2 network that separates the voice from music."""

import os

# ONNX Runtime's wheels (1.32 for Linux) report sessions to Microsoft unless this is set before they
# are imported; `onnxruntime.disable_telemetry_events` does not keep them from connecting.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
