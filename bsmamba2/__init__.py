"""BSMamba2: a band-split Mamba2 network that separates vocals from music."""

import os
from pathlib import Path

# ONNX Runtime's wheels (1.32 for Linux) report sessions to Microsoft unless this is set before they
# are imported; `onnxruntime.disable_telemetry_events` does not keep them from connecting.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# In a checkout, the packages export, plugins and runtime lie beside this folder, not in it.
_folder = Path(__file__).parent
if not (_folder / "runtime").is_dir():
    __path__.append(str(_folder.parent))

__version__ = "0.1.0"
