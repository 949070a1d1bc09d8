"""The CuPy names that the runtime uses, on a `Machine`; shapes are known at once, values later."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import scipy.fft

from fake_gpu.machine import CUDARuntimeError, Machine, OutOfMemoryError, address_of, quiet

MACHINE = Machine()
"""The machine that the fake modules use; `make_modules` sets it."""


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):  # noqa: N801  (CuPy's name)
    """An array in device memory. Only operations that CuPy has in the same form are here."""

    def __init__(self, memory: np.ndarray, block: np.ndarray) -> None:
        self.memory = memory
        self._block = block  # keeps the memory alive

    shape = property(lambda self: self.memory.shape)
    dtype = property(lambda self: self.memory.dtype)
    ndim = property(lambda self: self.memory.ndim)
    size = property(lambda self: self.memory.size)
    data = property(lambda self: SimpleNamespace(ptr=address_of(self.memory)))

    def __array__(self, *_: object, **__: object) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        function = getattr(ufunc, method)
        (out,) = options.pop("out", None) or (None,)
        return _compute(lambda *values: function(*values, **options), *inputs, out=out)

    def __getitem__(self, index: Any) -> ndarray:
        return self._sharing(self.memory[index])

    def __setitem__(self, index: Any, value: ndarray) -> None:
        _compute(lambda given: given, value, out=self[index])

    def view(self, dtype: Any) -> ndarray:
        return self._sharing(self.memory.view(dtype))

    def reshape(self, *shape: Any) -> ndarray:
        return self._sharing(self.memory.reshape(*shape))

    def all(self, axis: Any = None) -> Any:
        return np.logical_and.reduce(self, axis=axis)

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        assert (arr.shape, arr.dtype) == (self.shape, self.dtype)
        assert self.memory.flags.c_contiguous
        source = arr if MACHINE.is_pinned(arr) else arr.copy()
        (stream or MACHINE.current).enqueue(lambda: np.copyto(self.memory, source))

    def get(self, stream: Any = None, out: Any = None, blocking: bool = True) -> np.ndarray:
        stream = stream or MACHINE.current
        target = np.empty(self.shape, self.dtype) if out is None else out
        assert (target.shape, target.dtype) == (self.shape, self.dtype)
        assert self.memory.flags.c_contiguous
        stream.enqueue(lambda: np.copyto(target, self.memory))
        if blocking or not MACHINE.is_pinned(target):
            stream.synchronize()
        return target

    def _sharing(self, memory: np.ndarray) -> ndarray:
        assert memory.base is not None, "CuPy would have copied"
        return ndarray(memory, self._block)


ndarray.__module__ = "cupy"


def empty(shape: Any, dtype: Any = "float64") -> ndarray:
    dtype = np.dtype(dtype)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    block = MACHINE.allocate(int(np.prod(shape)) * dtype.itemsize)
    return ndarray(block[: int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape), block)


def zeros(shape: Any, dtype: Any = "float64") -> ndarray:
    array = empty(shape, dtype)
    MACHINE.do(lambda: array.memory.fill(0))
    return array


def asarray(values: np.ndarray) -> ndarray:
    array = empty(values.shape, values.dtype)
    array.set(values)
    return array


def pad(array: ndarray, width: Any, mode: str) -> ndarray:
    return _compute(lambda values: np.pad(values, width, mode=mode), array)


def sliding_window_view(x: ndarray, window_shape: int, axis: int) -> ndarray:
    return x._sharing(np.lib.stride_tricks.sliding_window_view(x.memory, window_shape, axis=axis))


def rfft(x: ndarray, axis: int = -1) -> ndarray:
    assert axis == -1
    MACHINE.fft_plan.check("R2C", x.shape[-1], x.size // x.shape[-1])
    return _compute(lambda values: scipy.fft.rfft(values, axis=-1), x)


def irfft(x: ndarray, n: int, axis: int = -1) -> ndarray:
    assert axis == -1
    MACHINE.fft_plan.check("C2R", n, x.size // x.shape[-1])
    return _compute(lambda values: scipy.fft.irfft(values, n=n, axis=-1), x)


class Plan1d:
    """A plan of cuFFT, whose scratch memory two streams must not share."""

    def __init__(self, nx: int, fft_type: str, batch: int) -> None:
        self._what, self._stream = (fft_type, nx, batch), MACHINE.current
        self._before: Any = None
        self._scratch = empty((batch,), "uint8")

    def check(self, *what: object) -> None:
        assert what == self._what
        assert self._stream is MACHINE.current, "a plan of another stream"

    def __enter__(self) -> Plan1d:
        self._before, MACHINE.fft_plan = MACHINE.fft_plan, self
        return self

    def __exit__(self, *_: object) -> None:
        MACHINE.fft_plan = self._before


def empty_pinned(shape: Any, dtype: Any) -> np.ndarray:
    array = np.empty(shape, dtype)
    array.view(np.uint8).fill(0xFF)
    return MACHINE.pin(array)


def make_modules(machine: Machine) -> dict[str, ModuleType]:
    """`cupy`, `cupyx` and what is below them, for `sys.modules`."""
    global MACHINE
    MACHINE = machine
    cupy, cupyx = ModuleType("cupy"), ModuleType("cupyx")
    scipy_, fft = ModuleType("cupyx.scipy"), ModuleType("cupyx.scipy.fft")
    pool = SimpleNamespace(free_all_blocks=lambda: None)
    vars(cupy).update(
        __version__="14.2.0",
        ndarray=ndarray,
        empty=empty,
        zeros=zeros,
        asarray=asarray,
        pad=pad,
        lib=SimpleNamespace(stride_tricks=SimpleNamespace(sliding_window_view=sliding_window_view)),
        get_default_memory_pool=lambda: pool,
        get_default_pinned_memory_pool=lambda: pool,
        cuda=_cuda(machine),
    )
    vars(cupyx).update(empty_pinned=empty_pinned, scipy=scipy_)
    vars(scipy_).update(fft=fft)
    vars(fft).update(rfft=rfft, irfft=irfft)
    return {"cupy": cupy, "cupyx": cupyx, "cupyx.scipy": scipy_, "cupyx.scipy.fft": fft}


def _cuda(machine: Machine) -> SimpleNamespace:
    from fake_gpu.machine import Stream

    def count() -> int:
        if machine.driver < machine.runtime:
            text = "CUDA driver version is insufficient for CUDA runtime version"
            raise CUDARuntimeError(35, f"cudaErrorInsufficientDriver: {text}")
        if machine.devices < 0:
            raise CUDARuntimeError(100, "cudaErrorNoDevice: no CUDA-capable device is detected")
        return machine.devices

    return SimpleNamespace(
        Stream=lambda non_blocking=False: Stream(machine),
        Device=lambda: SimpleNamespace(id=0, compute_capability=machine.capability),
        runtime=SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDeviceCount=count,
            getDeviceProperties=lambda device: {"name": b"Pretended GPU"},
            driverGetVersion=lambda: machine.driver,
            runtimeGetVersion=lambda: machine.runtime,
        ),
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        cufft=SimpleNamespace(
            Plan1d=Plan1d, CUFFT_R2C="R2C", CUFFT_C2R="C2R", getVersion=lambda: 12000
        ),
        nvrtc=SimpleNamespace(getVersion=lambda: (13, 2)),
    )


def _compute(function: Any, *inputs: Any, out: ndarray | None = None) -> ndarray:
    """Enqueues a function of arrays; returns its result, whose shape is known at once."""
    for value in inputs:
        if isinstance(value, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    values = [value.memory if isinstance(value, ndarray) else value for value in inputs]
    if out is None:
        with quiet():
            like = np.asarray(function(*values))
        out = empty(like.shape, like.dtype)
    target = out.memory

    def work() -> None:
        with quiet():
            np.copyto(target, function(*values))

    MACHINE.do(work)
    return out
