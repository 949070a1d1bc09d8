"""How the scan's library for CPUs is compiled; setup.py runs this before anything is installed.

The file of kernels is compiled once for each instruction set, and the library chooses among them at
each call. Nothing here imports from the package.
"""

from __future__ import annotations

import platform
import sys
import sysconfig

LIBRARY = "libbsm_scan_cpu.so"
"""The library is opened by its path, so it has the same name on every system."""
_FLAGS = (
    *("-std=c++17", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-pthread"),
    *("-ffp-contract=fast", "-fno-math-errno"),
)
_WIDE = {  # floats in a vector, and flags of the instruction set
    "avx2": (8, ("-mavx2", "-mfma")),
    "avx512": (16, ("-mavx512f", "-mfma", "-mprefer-vector-width=512")),
}


def compilations() -> list[tuple[str, str, list[str]]]:
    """Returns what to compile and link: a source in `cpu/`, a name for its object, and flags.

    Compilers turn vectors of four floats ("portable") into SSE2 or NEON.
    """
    wide = _WIDE if _is_x86() else {}
    kernels = [
        ("kernel.cpp", isa, [*_FLAGS, *flags, f"-DBSM_ISA={isa}", f"-DBSM_WIDTH={width}"])
        for isa, (width, flags) in ({"portable": (4, ())} | wide).items()
    ]
    chooser = [*_FLAGS, *(["-DBSM_HAS_X86"] if wide else [])]
    return [*kernels, ("scan.cpp", "all", chooser), ("onnxruntime_op.cpp", "all", chooser)]


def _is_x86() -> bool:
    """Whether only x86 is compiled for; some Pythons for Macs compile for two processors."""
    single = "universal" not in sysconfig.get_platform()
    return platform.machine().lower() in ("x86_64", "amd64") and sys.maxsize > 2**32 and single
