"""How the scan's library for CPUs is compiled; read by setup.py before anything is installed.

One file of kernels is compiled once for each instruction set; which one runs is decided when the
library is called. There is nothing here but constants and two functions, and no import of the
package.
"""

from __future__ import annotations

import platform
import sys
import sysconfig
from typing import NamedTuple

LIBRARY = "libbsm_scan_cpu.so"
"""Opened by path, so that it has one name on every system."""
FOLDER = "cpu"
"""Of the sources, beside this file."""
KERNELS = "kernel.cpp"
OTHERS = ("scan.cpp", "onnxruntime_op.cpp")
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
    return (_PORTABLE, *_X86) if _is_x86() else (_PORTABLE,)


def choice_arguments() -> tuple[str, ...]:
    """Arguments that tell the file that chooses the kernels whether those of x86 are there."""
    return ("-DBSM_HAS_X86",) if _is_x86() else ()


def _is_x86() -> bool:
    """Whether x86 is all that is compiled for; some Pythons for Macs compile for two processors."""
    single = "universal" not in sysconfig.get_platform()
    return platform.machine().lower() in ("x86_64", "amd64") and sys.maxsize > 2**32 and single
