"""Opens the GPU through CuPy, and turns CUDA's errors into one sentence each."""

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
    """The GPU is out of memory; smaller batches may fit."""


@dataclass(frozen=True, eq=False)
class Device:
    """A GPU that works."""

    cupy: ModuleType
    name: str
    """Product name, such as "NVIDIA H100 80GB HBM3"."""
    capability: str
    """Compute capability, such as "9.0"."""


def open_device() -> Device:
    """Opens the current GPU of this process.

    Raises:
        MissingExtraError: CuPy is not installed.
        EngineError: CuPy lacks libraries, or finds no GPU or no suitable driver.
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
    """Returns the memory of deleted arrays, which CuPy's pools keep, to CUDA."""
    gc.collect()  # arrays may be held by reference cycles, such as an error's frames
    device.cupy.get_default_memory_pool().free_all_blocks()
    device.cupy.get_default_pinned_memory_pool().free_all_blocks()


def chunks_text(count: int) -> str:
    """Writes a number of chunks: "a chunk", "4 chunks"."""
    return "a chunk" if count == 1 else f"{count} chunks"


@contextlib.contextmanager
def cuda_errors(doing: str) -> Iterator[None]:
    """Context manager that turns CuPy's exceptions into one sentence.

    Args:
        doing: What the block does, for the sentence, such as "the network".

    Raises:
        OutOfDeviceMemoryError: GPU memory or pinned memory ran out.
        EngineError: Any other error of CUDA or CuPy.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("cupy"):  # or cupy_backends
            raise
        raise device_error(doing, f"{type(error).__name__}: {error}") from error


def device_error(doing: str, text: str) -> EngineError:
    """Makes the exception for an error message of CUDA, CuPy or TensorRT.

    Args:
        doing: What failed, for the sentence.
        text: The error message.
    """
    reason = short_reason(text)
    if _OUT_OF_MEMORY.search(text):
        return OutOfDeviceMemoryError(f"The GPU has too little memory for {doing} ({reason}).")
    return EngineError(f"The GPU failed during {doing}: {reason}.")


def driver_is_too_old(text: str) -> bool:
    """Whether an error message means that the driver is missing or too old for the library."""
    # The first is TensorRT-RTX's wording, the second TensorRT's.
    wordings = rf"cudaError {_INSUFFICIENT_DRIVER}:|with error:? {_INSUFFICIENT_DRIVER}\b"
    return re.search(wordings, text) is not None


def _import_cupy() -> Any:
    try:
        import cupy
        import cupyx.scipy.fft  # noqa: F401  (checks that it is there)
    except ModuleNotFoundError as error:
        raise MissingExtraError("A .plan runs with CuPy, which", "trt") from error
    except ImportError as error:
        raise EngineError(
            f"CuPy does not load ({short_reason(error)}): pip install --force-reinstall "
            "'bsmamba2[trt]'."
        ) from error
    return cupy


def _check_libraries(cupy: Any) -> None:
    """Makes CuPy load CUDA's libraries, so that a missing one is found before the first song."""
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
        return f"CUDA does not start ({short_reason(error)}): run nvidia-smi, which may say more."
    driver = runtime.driverGetVersion()
    if not driver:
        return f"No NVIDIA driver found here: {_NOT_HERE}."
    return (
        f"The NVIDIA driver here supports CUDA {_release(driver)}, but CuPy {cupy.__version__} "
        f"needs CUDA {_release(runtime.runtimeGetVersion())}: update the driver."
    )


def _release(number: int) -> str:
    """Writes CUDA's version number as a release: "13.2" for 13020."""
    return f"{number // 1000}.{number % 1000 // 10}"
