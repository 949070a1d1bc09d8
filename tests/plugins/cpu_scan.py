"""The C interface of the scan for CPUs, `include/bsm_scan_cpu.h`, by ctypes."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import Any

from torch import Tensor

from bench.common.scans import ScanInputs
from bsmamba2.formats.operator import INPUTS
from bsmamba2.plugins.cpu_library import find_cpu_library

SIZES = ("n_heads", "headdim", "d_state", "d_conv")


class Isa(IntEnum):
    """BsmCpuIsa: vector instructions, from slow to fast."""

    BEST = 0
    PORTABLE = 1
    AVX2 = 2
    AVX512 = 3


class BsmCpuScan(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        *((name, ctypes.c_void_p) for name in (*INPUTS, "y")),
        *((name, ctypes.c_int64) for name in ("n_sequences", "length")),
        *((name, ctypes.c_int32) for name in SIZES),
        ("eps", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("threads", "isa")),
    )


class CpuScan:
    """The library of the package."""

    def __init__(self) -> None:
        path = find_cpu_library()
        assert path, "the package was installed without a C++ compiler"
        self._library = ctypes.CDLL(str(path))
        for text in (self._library.bsm_cpu_scan_isa_name, self._library.bsm_cpu_scan_status_text):
            text.restype = ctypes.c_char_p

    def isa_name(self, isa: Isa = Isa.BEST) -> str:
        """The name of the instructions that `isa` selects; "" if this CPU lacks them."""
        return self._library.bsm_cpu_scan_isa_name(isa).decode()

    def scan(self, inputs: ScanInputs, **changes: Any) -> Tensor:
        """Returns the float32 output; raises ValueError with the library's sentence.

        Args:
            inputs: Inputs of any type.
            changes: Fields of the call to change: threads, isa, or one that breaks the call.
        """
        tensors = dict(zip(INPUTS, (t.float().contiguous() for t in inputs.tensors), strict=True))
        N, L = inputs.zxbcdt.shape[:2]
        y = inputs.zxbcdt.new_full((N, L, 2 * inputs.sizes.d_inner), float("nan")).float()
        fields = {name: tensor.data_ptr() for name, tensor in (tensors | {"y": y}).items()} | {
            "size": ctypes.sizeof(BsmCpuScan),
            "n_sequences": N,
            "length": L,
            "n_heads": inputs.sizes.n_heads,
            "headdim": inputs.sizes.headdim,
            "d_state": inputs.sizes.d_state,
            "d_conv": inputs.conv_weight.shape[-1],
            "eps": inputs.eps,
        }
        call = BsmCpuScan(**(fields | changes))
        if status := self._library.bsm_cpu_scan(ctypes.byref(call)):
            assert y.isnan().all()
            raise ValueError(self._library.bsm_cpu_scan_status_text(status).decode())
        return y
