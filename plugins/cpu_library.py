"""The scan's library for CPUs, compiled when the package is installed.

ONNX Runtime opens the library itself and runs the operator that it registers; see
`bsmamba2.runtime.engines.onnxruntime`. `include/bsm_scan_cpu.h` describes its C interface.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from bsmamba2.plugins.cpu_sources import LIBRARY
from bsmamba2.plugins.cuda_library import load_library

ABI = 1
"""BSM_CPU_SCAN_ABI of the header that this file matches."""


def find_cpu_library() -> Path | None:
    """The library's file; None if the package was installed without a C++ compiler."""
    path = Path(__file__).parent / LIBRARY
    return path if path.is_file() else None


class CpuScanLibrary:
    """The loaded library.

    Attributes:
        path: The library's file.
        instructions: The vector instructions that it uses on this CPU: avx512, avx2 or portable.
    """

    def __init__(self, path: Path) -> None:
        """Loads the library.

        Raises:
            PluginError: It does not load, or its version differs from this package's.
        """
        self.path = path
        library = load_library(path, "bsm_cpu_scan_abi", ABI, "install bsmamba2 again")
        library.bsm_cpu_scan_isa_name.restype = ctypes.c_char_p
        self.instructions: str = library.bsm_cpu_scan_isa_name(0).decode()  # BSM_CPU_BEST
