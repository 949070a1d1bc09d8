"""How the scan's library for CPUs is compiled; read by setup.py before anything is installed.

One file of kernels is compiled once for each instruction set; which one runs is decided when the
library is called. There is nothing here but constants and one function, and no import of the
package.
"""

from __future__ import annotations

import platform
import sys
from typing import NamedTuple

LIBRARY = "libbsm_scan_cpu.so"
"""Opened by path, so that it has one name on every system."""
FOLDER = "cpu"
"""Of the sources, beside this file."""
KERNELS = "kernel.cpp"
OTHERS = ("scan.cpp", "onnxruntime_op.cpp")
HEADERS = ("onnxruntime_abi.h", "problem.h", "product.h", "scan.h", "vector.h")
FLAGS = (
    "-std=c++17",
    "-O3",
    "-g0",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-pthread",
)


class Variant(NamedTuple):
    """One compilation of the kernels."""

    name: str
    width: int
    """Floats of a vector."""
    flags: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of the compiler, beside FLAGS."""
        return (*self.flags, f"-DBSM_ISA={self.name}", f"-DBSM_WIDTH={self.width}")


_PORTABLE = Variant("portable", 4)
_X86 = (
    Variant("avx2", 8, ("-mavx2", "-mfma")),
    Variant("avx512", 16, ("-mavx512f", "-mfma", "-mprefer-vector-width=512")),
)


def variants() -> tuple[Variant, ...]:
    """Those for this machine's processor; vectors of four floats are SSE2 or NEON elsewhere."""
    x86 = platform.machine().lower() in ("x86_64", "amd64") and sys.maxsize > 2**32
    return (_PORTABLE, *_X86) if x86 else (_PORTABLE,)
