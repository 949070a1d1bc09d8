"""The GPU, through CuPy, and what can go wrong with it in one sentence each."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from bsmamba2.errors import EngineError, MissingExtraError, short_reason

_MEMORY_ALLOCATION, _INSUFFICIENT_DRIVER, _NO_DEVICE = 2, 35, 100  # of cudaError_t
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemory|cudaErrorMemoryAllocation|CUFFT_ALLOC_FAILED"
    rf"|cudaError {_MEMORY_ALLOCATION}\b",
    re.IGNORECASE,
)
_NOT_HERE = "a .plan runs on an NVIDIA GPU only; use the .onnx file that it was built from"


class OutOfDeviceMemoryError(EngineError):
    """The GPU's memory does not suffice; less at a time may."""


@dataclass(frozen=True, eq=False)
class Device:
    """A GPU that answers."""

    cupy: ModuleType
    name: str
    """As its maker calls it."""
    capability: str
    """Compute capability, such as "9.0"."""


def open_device() -> Device:
    """The current GPU of this process.

    Raises:
        MissingExtraError: CuPy is not installed.
        EngineError: CuPy lacks libraries, or there is no GPU or no driver that it can use.
    """
    cupy = _import_cupy()
    runtime = cupy.cuda.runtime
    try:
        if not runtime.getDeviceCount():
            raise EngineError(f"No NVIDIA GPU found here: {_NOT_HERE}.")
        device = cupy.cuda.Device()
        name = runtime.getDeviceProperties(device.id)["name"]
        capability = str(device.compute_capability)  # "90" for 9.0
    except runtime.CUDARuntimeError as error:
        raise EngineError(_no_device_sentence(cupy, error)) from error
    _check_libraries(cupy)
    return Device(
        cupy=cupy,
        name=name.decode() if isinstance(name, bytes) else str(name),
        capability=f"{capability[:-1]}.{capability[-1]}",
    )


def free_memory(device: Device) -> None:
    """Gives back to CUDA what CuPy keeps of arrays that are gone."""
    gc.collect()  # what only cycles hold, such as frames of an error
    device.cupy.get_default_memory_pool().free_all_blocks()
    device.cupy.get_default_pinned_memory_pool().free_all_blocks()


def chunks_text(count: int) -> str:
    """For people: "a chunk", "4 chunks"."""
    return "a chunk" if count == 1 else f"{count} chunks"


@contextlib.contextmanager
def cuda_errors(doing: str) -> Iterator[None]:
    """Makes one sentence of what CuPy raises in the block.

    Args:
        doing: What fails then, such as "the transforms".

    Raises:
        OutOfDeviceMemoryError: Memory of the GPU, or pinned memory, does not suffice.
        EngineError: Any other error of CUDA or of CuPy.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("cupy"):  # cupy_backends, too
            raise
        raise device_error(doing, f"{type(error).__name__}: {error}") from error


def device_error(doing: str, text: str) -> EngineError:
    """The error for a message of CUDA, of CuPy or of TensorRT.

    Args:
        doing: What failed.
        text: The message.
    """
    reason = short_reason(text)
    if _OUT_OF_MEMORY.search(text):
        return OutOfDeviceMemoryError(f"The GPU's memory does not suffice for {doing} ({reason}).")
    return EngineError(f"The GPU failed in {doing}: {reason}.")


def driver_is_too_old(text: str) -> bool:
    """Whether a message is of a driver that is missing or older than the library that asks it."""
    own_words = rf"cudaError {_INSUFFICIENT_DRIVER}:|with error:? {_INSUFFICIENT_DRIVER}\b"
    return re.search(own_words, text) is not None  # of TensorRT-RTX, of TensorRT


def _import_cupy() -> Any:
    try:
        import cupy
        import cupyx.scipy.fft  # noqa: F401  (to see whether it is there)
    except ModuleNotFoundError as error:
        raise MissingExtraError("A .plan runs with CuPy, which", "trt") from error
    except ImportError as error:
        raise EngineError(
            f"CuPy does not load ({short_reason(error)}): pip install --force-reinstall "
            "'bsmamba2[trt]'."
        ) from error
    return cupy


def _check_libraries(cupy: Any) -> None:
    """CuPy finds CUDA's libraries when it first needs them: better now than within a song."""
    try:
        cupy.cuda.cufft.getVersion()
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # ImportError, or an error of the library
        raise EngineError(
            f"CuPy {cupy.__version__} does not find CUDA's libraries "
            f"({short_reason(error)}): install CUDA's toolkit, or pip install 'bsmamba2[trt]'."
        ) from error


def _no_device_sentence(cupy: Any, error: Any) -> str:
    runtime = cupy.cuda.runtime
    if error.status == _NO_DEVICE:
        return f"No NVIDIA GPU found here: {_NOT_HERE}."
    if error.status != _INSUFFICIENT_DRIVER:
        return f"CUDA does not start ({short_reason(error)}): nvidia-smi may say more."
    driver = runtime.driverGetVersion()
    if not driver:
        return f"No NVIDIA driver found here: {_NOT_HERE}."
    return (
        f"The NVIDIA driver here is one for CUDA {_release(driver)}, but CuPy {cupy.__version__} "
        f"needs CUDA {_release(runtime.runtimeGetVersion())}: update the driver."
    )


def _release(number: int) -> str:
    """13.2 for 13020."""
    return f"{number // 1000}.{number % 1000 // 10}"
