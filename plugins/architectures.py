"""Which GPUs a build is for, in the words of CMake: 90-real is machine code, 90-virtual PTX."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable

from bsmamba2.errors import PluginError

OLDEST = 80
"""Compute capability 8.0, of the first chips with asynchronous copies and bfloat16."""
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NAME_BYTES = 256


def resolve_architectures(text: str) -> tuple[str, ...]:
    """What to compile for. Which of them nvcc has targets for, it says itself.

    Args:
        text: "native" (the GPUs of this machine), "all", or names such as "80,90" or "9.0+PTX".

    Returns:
        Values for CMake, sorted; ("all",) is left to CMakeLists.txt.

    Raises:
        PluginError: No GPU for "native", or names that are none or too old.
    """
    if text == "all":
        return ("all",)
    if text == "native":
        return _sorted(f"{gpu}-real" for gpu in _usable_gpus())
    names = [name for name in re.split(r"[\s,;]+", text.strip()) if name]
    if not names:
        raise PluginError("No architecture named: say native, all, or a list such as 80,90.")
    return _sorted(target for name in names for target in _named_targets(name))


def runs_on(architectures: Iterable[str], gpu: int) -> bool:
    """Whether code for `architectures` runs on a GPU of a compute capability (90 for 9.0)."""
    for target in architectures:
        number, _, kind = target.partition("-")
        same_family = int(number) // 10 == gpu // 10
        if int(number) <= gpu and (same_family or kind == "virtual"):
            return True
    return False


def describe(architectures: Iterable[str]) -> str:
    """For people: "sm_90, PTX 100"."""
    words = {"real": "sm_{}", "virtual": "PTX {}"}
    pairs = (target.partition("-") for target in architectures)
    return ", ".join(words.get(kind, "{}").format(number) for number, _, kind in pairs)


def gpus() -> tuple[int, ...]:
    """Compute capabilities of this machine's GPUs, 90 for 9.0, CUDA's default one first.

    Asks the driver, which heeds CUDA_VISIBLE_DEVICES, and so initialises CUDA in this process.
    """
    cuda, count = _start_driver(), ctypes.c_int()
    if cuda is None or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(_capability(cuda, index) for index in range(count.value))


def current_gpu() -> int | None:
    """Compute capability of the GPU that CUDA takes here by default; None without one."""
    return next(iter(gpus()), None)


def current_gpu_name() -> str:
    """Name of the GPU of `current_gpu`, such as "NVIDIA H100 80GB HBM3"; "" without one."""
    cuda = _start_driver()
    if cuda is None:
        return ""
    device, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    if cuda.cuDeviceGet(ctypes.byref(device), 0):
        return ""
    if cuda.cuDeviceGetName(name, _NAME_BYTES, device):
        return ""
    return name.value.decode("utf-8", errors="replace")


def dotted(capability: int) -> str:
    """9.0 for 90, as NVIDIA writes it."""
    return f"{capability // 10}.{capability % 10}"


def _usable_gpus() -> list[int]:
    usable = [gpu for gpu in gpus() if gpu >= OLDEST]
    if usable:
        return usable
    if gpus():
        raise PluginError(
            f"The GPU here has compute capability {dotted(max(gpus()))}, the kernels need "
            f"{dotted(OLDEST)} or newer: name another machine's with --arch, such as --arch 90."
        )
    raise PluginError("No NVIDIA GPU found here: name the target, --arch 90 or --arch all.")


def _named_targets(name: str) -> list[str]:
    match = re.fullmatch(r"(?:sm_?)?(\d+?)\.?(\d)(\+ptx)?", name, re.IGNORECASE)
    if not match:
        raise PluginError(
            f"'{name}' is no architecture: say native, all, or a list such as 80,90 or 90+PTX."
        )
    number = int(match[1] + match[2])
    if number < OLDEST:
        raise PluginError(
            f"The kernels need architecture {OLDEST} or newer, not {number}: name others."
        )
    return [f"{number}-real", f"{number}-virtual"] if match[3] else [f"{number}-real"]


def _sorted(targets: Iterable[str]) -> tuple[str, ...]:
    def order(target: str) -> tuple[str, int]:
        number, _, kind = target.partition("-")
        return kind, int(number)

    return tuple(sorted(set(targets), key=order))


def _start_driver() -> ctypes.CDLL | None:
    """The initialised driver; None where it is absent or does not start."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return None if cuda.cuInit(0) else cuda


def _capability(cuda: ctypes.CDLL, index: int) -> int:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return major.value * 10 + minor.value
