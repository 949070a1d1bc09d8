"""GPUs by compute capability, and which code runs on them, in nvcc's words.

sm_90 is machine code for GPUs of capability 9.0, compute_90 is PTX, which the driver compiles for
those and for newer ones.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Sequence

from bsmamba2.errors import PluginError

OLDEST = 80
"""Compute capability 8.0, of the first chips with asynchronous copies and bfloat16."""
COMMON = (80, 86, 89, 90, 100, 120)
"""The architectures that "all" has machine code for, as far as nvcc knows them."""
_PTX_OF_ALL = (100, 90)
"""Chips from 10.0 on can translate the PTX of 10.0; that of 12.0 only those from 12.0 on."""
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


def resolve_architectures(text: str, known: Sequence[int]) -> tuple[str, ...]:
    """What to compile for.

    Args:
        text: "native" (the GPUs of this machine), "all", or names such as "80,90" or "9.0+PTX".
        known: What nvcc compiles for: 90 for 9.0.

    Raises:
        PluginError: No GPU for "native", or names that are none, too old or unknown to nvcc.
    """
    names = [name for name in re.split(r"[\s,;]+", text.strip()) if name]
    if not names:
        raise PluginError("No architecture named: say native, all, or a list such as 80,90.")
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
                f"This nvcc has no target {number}: install a newer one, or name one of 'nvcc "
                "--list-gpu-arch' with +PTX, such as --arch 90+PTX, for the driver to compile."
            )
    return tuple(sorted(set(found), key=lambda target: (target[0] == "c", _number(target))))


def runs_on(architectures: Iterable[str], gpu: int) -> bool:
    """Whether code for `architectures` runs on a GPU of a compute capability (90 for 9.0)."""
    for target in architectures:
        number = _number(target)
        if number <= gpu and (number // 10 == gpu // 10 or target.startswith("compute")):
            return True
    return False


def gpus() -> tuple[int, ...]:
    """Compute capabilities of this machine's GPUs, 90 for 9.0, CUDA's default one first.

    Asks the driver, which heeds CUDA_VISIBLE_DEVICES, and so initialises CUDA in this process.
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
    """Compute capability of the GPU that CUDA takes here by default; None without one."""
    return next(iter(gpus()), None)


def dotted(capability: int) -> str:
    """9.0 for 90, as NVIDIA writes it."""
    return f"{capability // 10}.{capability % 10}"


def _usable_gpus() -> list[int]:
    here = gpus()
    usable = [gpu for gpu in here if gpu >= OLDEST]
    if here and not usable:
        raise PluginError(
            f"The GPU here has compute capability {dotted(max(here))}, the kernels need "
            f"{dotted(OLDEST)} or newer: name another machine's with --arch, such as --arch 90."
        )
    if not usable:
        raise PluginError("No NVIDIA GPU found here: name the target, --arch 90 or --arch all.")
    return usable


def _named_targets(name: str) -> list[str]:
    match = re.fullmatch(r"(?:sm_?)?(\d+?)\.?(\d)(\+ptx)?", name, re.IGNORECASE)
    if not match:
        raise PluginError(
            f"'{name}' is no architecture: say native, all, or a list such as 80,90 or 90+PTX."
        )
    number = match[1] + match[2]
    if int(number) < OLDEST:
        raise PluginError(
            f"The kernels need architecture {OLDEST} or newer, not {number}: name others."
        )
    return [f"sm_{number}", f"compute_{number}"] if match[3] else [f"sm_{number}"]


def _number(target: str) -> int:
    return int(target.partition("_")[2])
