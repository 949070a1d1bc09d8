"""GPUs by compute capability, and the code that runs on them, by nvcc's names for it.

sm_90 is machine code for GPUs of capability 9.0; compute_90 is PTX, which the driver compiles for
these and newer ones.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Sequence

from bsmamba2.errors import PluginError

OLDEST = 80
"""The least compute capability, 8.0: the first chips with asynchronous copies and bfloat16."""
COMMON = (80, 86, 89, 90, 100, 120)
"""The architectures that "all" compiles machine code for, as far as nvcc supports them."""
_PTX_OF_ALL = (100, 90)
"""The PTX in "all" is the first of these that nvcc supports: PTX of 12.0 would not run on 10.0."""
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


def resolve_architectures(text: str, known: Sequence[int]) -> tuple[str, ...]:
    """Returns the targets to compile for, such as sm_90 and compute_90.

    Args:
        text: "native" (the GPUs of this machine), "all", or names such as "80,90" or "9.0+PTX".
        known: The architectures that nvcc supports; 90 stands for 9.0.

    Raises:
        PluginError: "native" without a GPU, or a name that is invalid, too old or unknown to nvcc.
    """
    names = [name for name in re.split(r"[\s,;]+", text.strip()) if name]
    if not names:
        raise PluginError("No architecture given: use native, all, or a list such as 80,90.")
    if text == "all":
        ptx = next(number for number in _PTX_OF_ALL if number in known)
        found = [f"sm_{number}" for number in COMMON if number in known] + [f"compute_{ptx}"]
    elif text == "native":
        found = [f"sm_{gpu}" for gpu in _usable_gpus()]
    else:
        found = [target for name in names for target in _named_targets(name)]
    for number in sorted(map(_number, found)):
        if number not in known:
            raise PluginError(
                f"This nvcc has no target {number}: install a newer one, or add +PTX to one of "
                "'nvcc --list-gpu-arch', such as --arch 90+PTX, which the driver then compiles."
            )
    return tuple(sorted(set(found), key=lambda target: (target[0] == "c", _number(target))))


def runs_on(architectures: Iterable[str], gpu: int) -> bool:
    """Whether code for `architectures` runs on a GPU of compute capability `gpu` (90 for 9.0)."""
    for target in architectures:
        number = _number(target)
        if number <= gpu and (number // 10 == gpu // 10 or target.startswith("compute")):
            return True
    return False


def gpus() -> tuple[int, ...]:
    """Compute capabilities of this machine's GPUs, 90 for 9.0, with CUDA's default GPU first.

    Asks the driver, which respects CUDA_VISIBLE_DEVICES; this initialises CUDA in the process.
    """
    device, count, major, minor = (ctypes.c_int() for _ in range(4))
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    found = []
    for index in range(count.value):
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
        found.append(major.value * 10 + minor.value)
    return tuple(found)


def current_gpu() -> int | None:
    """Compute capability of the GPU that CUDA uses by default; None without a GPU."""
    return next(iter(gpus()), None)


def dotted(capability: int) -> str:
    """Writes a compute capability as NVIDIA does: 9.0 for 90."""
    return f"{capability // 10}.{capability % 10}"


def _usable_gpus() -> list[int]:
    here = gpus()
    usable = [gpu for gpu in here if gpu >= OLDEST]
    if here and not usable:
        raise PluginError(
            f"The GPU here has compute capability {dotted(max(here))}, but the kernels need "
            f"{dotted(OLDEST)} or newer: to build for another machine, use --arch, such as "
            "--arch 90."
        )
    if not usable:
        raise PluginError("No NVIDIA GPU found here: name a target, such as --arch 90 or all.")
    return usable


def _named_targets(name: str) -> list[str]:
    match = re.fullmatch(r"(?:sm_?)?(\d+?)\.?(\d)(\+ptx)?", name, re.IGNORECASE)
    if not match:
        raise PluginError(
            f"'{name}' is not an architecture: use native, all, or a list such as 80,90 or 90+PTX."
        )
    number = match[1] + match[2]
    if int(number) < OLDEST:
        raise PluginError(
            f"The kernels need architecture {OLDEST} or newer, not {number}: name another one."
        )
    return [f"sm_{number}", f"compute_{number}"] if match[3] else [f"sm_{number}"]


def _number(target: str) -> int:
    return int(target.partition("_")[2])
