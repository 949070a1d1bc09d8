"""The scan's library for CPUs, compiled when the package was installed, by ctypes.

ONNX Runtime opens the same file by itself, for the operator that it registers; see
`bsmamba2.runtime.engines.onnxruntime`. `include/bsm_scan_cpu.h` says what each field means.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from pathlib import Path

from bsmamba2.plugins.cpu_sources import LIBRARY
from bsmamba2.plugins.library import (
    ARRAY_FIELDS,
    SIZE_FIELDS,
    ScanArrays,
    ScanError,
    ScanSizes,
    cut_size,
    load_library,
)

ABI = 1
"""BSM_CPU_SCAN_ABI of the header that this file was written for."""
_BAD_SIZES = 3  # BSM_CPU_BAD_SIZES


class Isa(IntEnum):
    """BsmCpuIsa: vector instructions, from slow to fast."""

    BEST = 0
    PORTABLE = 1
    AVX2 = 2
    AVX512 = 3


def find_cpu_library() -> Path | None:
    """The library's file; None where the package was installed without a C++ compiler."""
    path = Path(__file__).parent / LIBRARY
    return path if path.is_file() else None


class CpuScanLibrary:
    """The loaded library; safe to use from several threads.

    Attributes:
        path: The library's file.
    """

    def __init__(self, path: Path) -> None:
        """Loads the library.

        Raises:
            PluginError: It does not load, or is of another version than this package.
        """
        self.path = path
        library = load_library(path, "bsm_cpu_scan_abi", ABI, "install bsmamba2 again")
        self._library = library
        library.bsm_cpu_scan.argtypes = (ctypes.POINTER(_BsmCpuScan),)
        library.bsm_cpu_scan.restype = ctypes.c_int
        for text in (library.bsm_cpu_scan_isa_name, library.bsm_cpu_scan_status_text):
            text.argtypes, text.restype = (ctypes.c_int,), ctypes.c_char_p

    def isa_name(self, isa: Isa = Isa.BEST) -> str:
        """What `isa` is on this CPU: avx512, avx2 or portable; "" for what it does not have."""
        return self._library.bsm_cpu_scan_isa_name(isa).decode()

    def scan(
        self,
        sizes: ScanSizes,
        arrays: ScanArrays,
        *,
        threads: int | None = None,
        isa: Isa = Isa.BEST,
    ) -> None:
        """Computes a scan.

        Args:
            sizes: Of the arrays, of type float32; nothing can check that they are true.
            arrays: Addresses of contiguous arrays in memory; `y` is written.
            threads: At most; None for one a core.
            isa: Instructions to use.

        Raises:
            ScanError: Sizes, addresses or instructions that the library does not take.
        """
        if name := cut_size(sizes):
            raise ScanError(f"Scan: {name} {getattr(sizes, name)} is too large.", _BAD_SIZES)
        call = _BsmCpuScan(size=ctypes.sizeof(_BsmCpuScan), threads=threads or 0, isa=isa)
        for name, _ in SIZE_FIELDS:
            setattr(call, name, getattr(sizes, name))
        for name, address in vars(arrays).items():
            setattr(call, name, address)
        if status := self._library.bsm_cpu_scan(ctypes.byref(call)):
            text = self._library.bsm_cpu_scan_status_text(status).decode()
            raise ScanError(f"Scan: {text}.", status)


class _BsmCpuScan(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        *ARRAY_FIELDS,
        *SIZE_FIELDS,
        ("threads", ctypes.c_int32),
        ("isa", ctypes.c_int32),
    )
