"""The scan's library for CPUs, compiled when the package was installed, by ctypes.

ONNX Runtime opens the same file by itself, for the operator that it registers; see
`bsmamba2.runtime.engines.onnxruntime`. `include/bsm_scan_cpu.h` says what each field means.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from pathlib import Path

from bsmamba2.errors import PluginError
from bsmamba2.plugins.cpu_sources import LIBRARY
from bsmamba2.plugins.library import ScanArrays, ScanError, ScanSizes

ABI = 1
"""BSM_CPU_SCAN_ABI of the header that this file was written for."""


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
        try:
            self._library = ctypes.CDLL(str(path.absolute()))
            abi = self._library.bsm_cpu_scan_abi
        except (OSError, AttributeError) as error:
            raise PluginError(f"{path} does not load: {error}; install bsmamba2 again.") from error
        abi.argtypes, abi.restype = (), ctypes.c_int
        if (found := abi()) != ABI:
            raise PluginError(
                f"{path} has version {found} of the scan's interface and this bsmamba2 version "
                f"{ABI}: install bsmamba2 again."
            )
        self._declare()

    def _declare(self) -> None:
        library = self._library
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
        call = _BsmCpuScan(size=ctypes.sizeof(_BsmCpuScan), threads=threads or 0, isa=isa)
        for name, value in vars(sizes).items():
            if name != "dtype":
                setattr(call, name, value)
        for name, address in vars(arrays).items():
            setattr(call, name, address)
        if status := self._library.bsm_cpu_scan(ctypes.byref(call)):
            text = self._library.bsm_cpu_scan_status_text(status).decode()
            raise ScanError(f"Scan: {text}.", status)


class _BsmCpuScan(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("zxbcdt", ctypes.c_void_p),
        ("conv_weight", ctypes.c_void_p),
        ("conv_bias", ctypes.c_void_p),
        ("dt_bias", ctypes.c_void_p),
        ("A", ctypes.c_void_p),
        ("D", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("n_sequences", ctypes.c_int64),
        ("length", ctypes.c_int64),
        ("n_heads", ctypes.c_int32),
        ("headdim", ctypes.c_int32),
        ("d_state", ctypes.c_int32),
        ("d_conv", ctypes.c_int32),
        ("eps", ctypes.c_float),
        ("threads", ctypes.c_int32),
        ("isa", ctypes.c_int32),
    )
