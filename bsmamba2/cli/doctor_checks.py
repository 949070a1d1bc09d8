"""Checks what this machine can run, what is missing for the rest, and how to mend it.

Every optional backend is imported within its own check, so that one that is absent or broken
becomes a line of the report.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bsmamba2 import __version__
from bsmamba2.errors import BsmError, MissingExtraError, short_reason
from bsmamba2.system.cores import usable_cores

PACKAGES = ("numpy", "scipy", "soundfile", "soxr", "onnxruntime", "onnxruntime-gpu", "click",
            "tqdm", "PyYAML", "torch", "safetensors", "tensorboard", "onnx", "onnxscript", "av",
            "tensorrt", "tensorrt-rtx", "cupy-cuda13x", "mamba-ssm")  # fmt: skip
_CORE = ("numpy", "scipy", "soxr", "onnxruntime", "click", "tqdm", "PyYAML")
_FORMATS = ("WAV", "FLAC", "MP3", "OGG")  # what 'bsm infer' writes
_TEST_FRAMES = 8


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was tried."""

    name: str
    ok: bool
    detail: str
    """What was found, or why it does not work and how to mend it."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that `examine` found."""

    machine: dict[str, Any]
    """Versions and processors."""
    checks: dict[str, tuple[Check, ...]]
    """Checks by title: "core" (the embedded engine), "engines" by suffix, "cuda" and "audio"."""
    packages: dict[str, str | None]
    """Distribution -> version, None if it is not installed."""

    @property
    def ok(self) -> bool:
        """Whether separation with the embedded engine works."""
        return all(check.ok for check in self.checks["core"])

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        checks = {title: [asdict(check) for check in found] for title, found in self.checks.items()}
        return {"ok": self.ok} | self.machine | checks | {"packages": self.packages}


def examine() -> Report:
    """Examines this machine; does not raise for what is absent or broken."""
    driver = Path("/proc/driver/nvidia/version").exists() or bool(shutil.which("nvidia-smi"))
    return Report(
        machine={
            "bsmamba2": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpus": usable_cores(),
            "nvidia_driver": driver,
        },
        checks={
            "core": (_guarded("embedded engine", _run_embedded_engine, *_CORE),),
            "engines": (
                _guarded(".onnx", lambda: _onnx_detail(driver), "onnxruntime"),
                _guarded(".safetensors", _torch_detail, "torch", "safetensors"),
                _guarded(".plan", _plan_detail, "tensorrt", "tensorrt-rtx", "cupy-cuda13x"),
            ),
            "cuda": (_guarded("scan library", _scan_library_detail),),
            "audio": (
                _guarded("soundfile", _soundfile_detail, "soundfile"),
                _guarded("m4a, mp4", _av_detail, "av"),
            ),
        },
        packages={name: version(name) for name in PACKAGES},
    )


def version(distribution: str) -> str | None:
    """Returns the version of an installed distribution, without importing it."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _lowest() -> dict[str, str]:
    """Returns the lowest versions that this package declares; none in a bare checkout."""
    try:
        declared = importlib.metadata.requires("bsmamba2") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    return dict(re.findall(r"^([\w-]+)\S*?>=([\d.]+)", "\n".join(declared), re.MULTILINE))


def _numbers(text: str) -> list[int]:
    """The numbers that a version begins with: "2.13.0+cpu" -> [2, 13, 0]."""
    return [int(number) for number in re.findall(r"\d+", text.partition("+")[0])]


class _Unusable(Exception):  # noqa: N818  (a finding, not an error)
    """Something does not work; the text says why and how to mend it."""


def _guarded(name: str, find: Callable[[], str], *packages: str) -> Check:
    """Makes a check from a function that returns a detail or raises an error.

    It fails as well if one of the packages is installed in a version below the declared one.
    """
    lowest = _lowest()
    try:
        for package in packages:
            found, least = version(package), lowest.get(package)
            if found and least and _numbers(found) < _numbers(least):
                raise _Unusable(
                    f"{package} {found} is older than {least}, which bsmamba2 needs: "
                    f"pip install '{package}>={least}'"
                )
        return Check(name=name, ok=True, detail=find())
    except (BsmError, _Unusable) as error:
        return Check(name=name, ok=False, detail=str(error))
    except Exception as error:  # a backend may fail in any way; the report must not
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return Check(name=name, ok=False, detail=f"does not load: {text}")


def _run_embedded_engine() -> str:
    """Computes a mask of a few silent frames."""
    import numpy as np

    from bsmamba2.runtime.engines import load_engine

    start = time.perf_counter()
    engine = load_engine("default")
    audio, provenance = engine.metadata.model.audio, engine.metadata.provenance
    spectrum = np.zeros((1, audio.channels, _TEST_FRAMES, audio.bins, 2), np.float32)
    mask = engine(spectrum)
    if mask.shape != spectrum.shape or not np.isfinite(mask).all():
        raise _Unusable("returns no usable mask: reinstall bsmamba2")
    trained = "" if provenance.trained else "; its weights are random and separate nothing"
    return f"masks {_TEST_FRAMES} frames in {time.perf_counter() - start:.2f} s{trained}"


def _onnx_detail(driver: bool) -> str:
    import onnxruntime

    if version("onnxruntime") and version("onnxruntime-gpu"):
        raise _Unusable(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "pip uninstall both, then install the one you want"
        )
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    device = "CUDA and CPU" if cuda else "CPU"
    if driver and not cuda:
        device = "CPU; for the GPU: pip uninstall onnxruntime, pip install onnxruntime-gpu"
    return f"onnxruntime {onnxruntime.__version__} on {device}; {_cpu_scan()}"


def _cpu_scan() -> str:
    """Describes what computes the scans of `.onnx` files on this CPU."""
    from bsmamba2.plugins.cpu_library import CpuScanLibrary, find_cpu_library

    slow = "scans in standard operators, with which a chunk takes about twice as long: "
    path = find_cpu_library()
    if path is None:
        return f"{slow}install bsmamba2 from source with a C++ compiler (g++ or clang++)"
    try:
        return f"native scans, {CpuScanLibrary(path).instructions}"
    except BsmError as error:
        return slow + short_reason(error)


def _torch_detail() -> str:
    if absent := [name for name in ("torch", "safetensors") if not version(name)]:
        raise _Unusable(f"{' and '.join(absent)} not installed: pip install 'bsmamba2[train]'")
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"torch {torch.__version__} on {device}"


def _plan_detail() -> str:
    """Lists everything that plans lack at once, since each thing takes an installation."""
    found, absent, problems = [], [], []
    for find in (_tensorrt_runtimes, _plan_gpu, _plan_plugin):
        try:
            found.append(find())
        except _Absent as error:
            absent.append(str(error))
        except (BsmError, _Unusable) as error:
            problems.append(_clause(str(error)))
    if absent:
        problems.insert(0, f"{' and '.join(absent)} not installed: pip install 'bsmamba2[trt]'")
    if problems:
        raise _Unusable("; ".join(problems))
    return " on ".join(filter(None, found))


class _Absent(Exception):  # noqa: N818
    """A package of the 'trt' extra is not installed; the text is its name."""


def _clause(sentence: str) -> str:
    """Makes a sentence part of another one: no full stop, no capital unless it is a name's."""
    text = sentence.rstrip(".")
    return text[0].lower() + text[1:] if text.startswith(("The ", "A ")) else text


def _tensorrt_runtimes() -> str:
    from bsmamba2.formats.trt_plan import BUILDERS, TITLES

    found = []
    for name, module in BUILDERS.items():
        try:
            found.append(f"{TITLES[name]} {importlib.import_module(module).__version__}")
        except ModuleNotFoundError:
            continue
        except Exception as error:  # a wheel without its libraries fails in many ways
            raise _Unusable(f"{TITLES[name]} does not load ({short_reason(error)})") from error
    if not found:
        raise _Absent("TensorRT")
    return " and ".join(found)


def _plan_gpu() -> str:
    from bsmamba2.runtime.engines.tensorrt.device import open_device

    try:
        device = open_device()
    except MissingExtraError as error:
        raise _Absent("CuPy") from error
    return f"{device.name}, compute capability {device.capability}"


def _plan_plugin() -> str:
    from bsmamba2.plugins.build import find_libraries

    if find_libraries(plugin=True) is None:
        raise _Unusable("the plugin is not built: bsm plugin build")
    return ""


def _scan_library_detail() -> str:
    from bsmamba2.plugins.architectures import gpus
    from bsmamba2.plugins.build import find_libraries
    from bsmamba2.plugins.toolchain import find_toolchain

    libraries = find_libraries()
    if not libraries:
        release = find_toolchain().release  # raises an error that names what is missing
        command = "bsm plugin build" if gpus() else "bsm plugin build --arch all"
        raise _Unusable(f"not built: {command} (nvcc {release} is here)")
    plugin = "with" if find_libraries(plugin=True) else "without"
    return f"for {', '.join(libraries.architectures)}, {plugin} the TensorRT plugin"


def _av_detail() -> str:
    found = version("av")
    if not found:
        raise _Unusable("not installed: pip install 'bsmamba2[av]'")
    return f"PyAV {found}: m4a, mp4 and others"


def _soundfile_detail() -> str:
    import soundfile

    library = f"libsndfile {soundfile.__libsndfile_version__}"
    absent = [name for name in _FORMATS if name not in soundfile.available_formats()]
    if absent:
        raise _Unusable(f"{library} lacks {', '.join(absent)}: pip install --upgrade soundfile")
    return f"{library}: {', '.join(_FORMATS).lower()}"
