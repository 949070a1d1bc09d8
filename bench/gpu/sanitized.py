"""Scans of single cases without torch, for compute-sanitizer and ncu to watch.

    python bench/gpu/sanitized.py LIBRARY [--driver libcuda.so.1] [--plant] CASE...

A CASE is N:L:n_heads:headdim:d_state:dtype. Every array is an allocation of its own and of its
exact size, made through the CUDA driver, so that one element too many is found; a framework's
allocator would hide it. Without --driver the arrays lie in host memory, for the emulation.
--plant makes the output too short, to see whether the tool finds that.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout


Array = NDArray[np.generic]
_POISON = 0xFF  # as a float of any size: NaN


class Memory(Protocol):
    """Where the arrays lie."""

    def allocate(self, size: int) -> int:
        """The address of `size` bytes that nobody has written."""
        ...

    def put(self, array: Array) -> int:
        """The address of a copy."""
        ...

    def get(self, address: int, array: Array) -> None:
        """Copies back, after everything has run."""
        ...


class HostMemory:
    """This process's own, from multiples of 64 bytes on."""

    def __init__(self) -> None:
        self._kept: list[Array] = []

    def allocate(self, size: int) -> int:
        """See `Memory`."""
        block = np.empty(size + 64, np.uint8)
        self._kept.append(block)
        return block.ctypes.data + -block.ctypes.data % 64

    def put(self, array: Array) -> int:
        """See `Memory`."""
        address = self.allocate(array.nbytes)
        ctypes.memmove(address, array.ctypes.data, array.nbytes)
        return address

    def get(self, address: int, array: Array) -> None:
        """See `Memory`."""
        ctypes.memmove(array.ctypes.data, address, array.nbytes)


class DriverMemory:
    """The first GPU's, by the CUDA driver; its context is the one the scan library uses."""

    def __init__(self, driver: str) -> None:
        self._cuda = ctypes.CDLL(driver)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def allocate(self, size: int) -> int:
        """See `Memory`."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def put(self, array: Array) -> int:
        """See `Memory`."""
        address = self.allocate(array.nbytes)
        source, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), source, size)
        return address

    def get(self, address: int, array: Array) -> None:
        """See `Memory`."""
        self._call("cuCtxSynchronize")
        target, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyDtoH_v2", target, ctypes.c_uint64(address), size)

    def _call(self, name: str, *arguments: object) -> None:
        if status := getattr(self._cuda, name)(*arguments):
            raise RuntimeError(f"{name} gives CUDA's error {status}")


def main() -> int:
    """Scans each case; returns 1 if an output was not written everywhere."""
    parser = argparse.ArgumentParser(prog="bench/gpu/sanitized.py")
    parser.add_argument("library", type=Path)
    parser.add_argument("--driver", default="")
    parser.add_argument("--plant", action="store_true")
    parser.add_argument("cases", nargs="+")
    options = parser.parse_args()
    incomplete = 0
    for case in options.cases:
        memory = DriverMemory(options.driver) if options.driver else HostMemory()
        complete = _scan(options.library, memory, case, short=options.plant)
        incomplete += not complete
        print(f"{case}: {'written' if complete else 'NOT WRITTEN EVERYWHERE'}", flush=True)
    return 1 if incomplete else 0


def _scan(path: Path, memory: Memory, case: str, *, short: bool) -> bool:
    from bsmamba2.plugins.library import ScanArrays, ScanLibrary, ScanSizes

    *numbers, dtype = case.split(":")
    N, L, n_heads, headdim, d_state = map(int, numbers)
    sizes = ScanSizes(
        n_sequences=N, length=L, n_heads=n_heads, headdim=headdim, d_state=d_state, dtype=dtype
    )
    library = ScanLibrary(path)
    random = np.random.default_rng(N + L)
    d_inner = n_heads * headdim
    d_xbc = d_inner + 2 * d_state

    def normal(*shape: int) -> Array:
        return _typed(random.standard_normal(shape, np.float32), dtype)

    steps = {name: random.random((2, n_heads), np.float32) for name in ("dt_bias", "A", "D")}
    steps["A"] *= -1
    inputs = {
        "zxbcdt": normal(N, L, 2 * (d_inner + d_xbc + n_heads)),
        "conv_weight": normal(2, d_xbc, 4),
        "conv_bias": normal(2, d_xbc),
        **steps,
    }
    itemsize = inputs["zxbcdt"].itemsize
    needed = library.workspace_bytes(sizes)
    workspace = memory.allocate(needed) if needed else 0
    addresses = {name: memory.put(array) for name, array in inputs.items()}
    y = np.full((N, L, 2 * d_inner * itemsize), _POISON, np.uint8)
    addresses["y"] = memory.put(y.reshape(-1)[: y.size // 2] if short else y)
    library.enqueue(sizes, ScanArrays(**addresses), workspace=workspace, workspace_bytes=needed)
    memory.get(addresses["y"], y.reshape(-1)[: y.size // 2] if short else y)
    elements = y.reshape(-1, itemsize)
    return short or not (elements == _POISON).all(axis=1).any()


def _typed(values: NDArray[np.float32], dtype: str) -> Array:
    if dtype == "bfloat16":  # NumPy has none: the upper half of the bits
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype)


if __name__ == "__main__":
    sys.exit(main())
