"""Which GPUs a build is for, in the words of CMake: 90-real is machine code, 90-virtual PTX."""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable

from bsmamba2.errors import PluginError

OLDEST = 80
"""Compute capability 8.0, of the first chips with asynchronous copies and bfloat16."""
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NAME_BYTES = 256


def resolve_architectures(text: str, known: Collection[int]) -> tuple[str, ...]:
    """What to compile for.

    Args:
        text: "native" (the GPUs of this machine), "all", or names such as "80,90" or "9.0+PTX".
        known: Compute capabilities that nvcc has targets for, 90 for 9.0.

    Returns:
        Values for CMake, sorted; ("all",) is left to CMakeLists.txt.

    Raises:
        PluginError: No GPU for "native", or names that are none, too old or unknown to nvcc.
    """
    if text == "all":
        return ("all",)
    if text == "native":
        return _sorted(_target(gpu, known) for gpu in _usable_gpus())
    names = [name for name in re.split(r"[\s,;]+", text.strip()) if name]
    if not names:
        raise PluginError("No architecture named: say native, all, or a list such as 80,90.")
    return _sorted(target for name in names for target in _named_targets(name, known))


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


@functools.cache
def gpus() -> tuple[int, ...]:
    """Compute capabilities of this machine's GPUs, 90 for 9.0; none without a driver.

    Asked once a process: of nvidia-smi where there is one, because a process that has initialised
    CUDA itself cannot fork any more, else of the driver.
    """
    found = _ask_nvidia_smi()
    return tuple(sorted(set(_ask_driver() if found is None else found)))


def current_gpu() -> int | None:
    """Compute capability of the GPU that CUDA takes here by default; None without one.

    Asks the driver, which heeds CUDA_VISIBLE_DEVICES, and so initialises CUDA in this process.
    """
    return next(iter(_ask_driver()), None)


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


def _target(gpu: int, known: Collection[int]) -> str:
    """Machine code that runs on `gpu`; PTX where nvcc is older than that family of chips."""
    if gpu in known:
        return f"{gpu}-real"
    older = [number for number in known if OLDEST <= number < gpu]
    if not older:
        raise PluginError(f"nvcc has no target for compute capability {dotted(gpu)}: update it.")
    family = [number for number in older if number // 10 == gpu // 10]
    return f"{max(family)}-real" if family else f"{max(older)}-virtual"


def _named_targets(name: str, known: Collection[int]) -> list[str]:
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
    if number not in known:
        offered = ", ".join(str(target) for target in sorted(known) if target >= OLDEST)
        raise PluginError(
            f"This nvcc does not compile for {number}, only for {offered}: name these."
        )
    return [f"{number}-real", f"{number}-virtual"] if match[3] else [f"{number}-real"]


def _sorted(targets: Iterable[str]) -> tuple[str, ...]:
    def order(target: str) -> tuple[str, int]:
        number, _, kind = target.partition("-")
        return kind, int(number)

    return tuple(sorted(set(targets), key=order))


def _ask_nvidia_smi() -> list[int] | None:
    """None where it is absent or does not answer."""
    program = shutil.which("nvidia-smi")
    if not program:
        return None
    command = [program, "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    pairs = re.findall(r"^\s*(\d+)\.(\d+)\s*$", done.stdout, re.MULTILINE)
    return [int(major) * 10 + int(minor) for major, minor in pairs]


def _start_driver() -> ctypes.CDLL | None:
    """The initialised driver; None where it is absent or does not start."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return None if cuda.cuInit(0) else cuda


def _ask_driver() -> list[int]:
    cuda, count = _start_driver(), ctypes.c_int()
    if cuda is None or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    return [_capability(cuda, index) for index in range(count.value)]


def _capability(cuda: ctypes.CDLL, index: int) -> int:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return major.value * 10 + minor.value
