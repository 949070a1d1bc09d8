"""What this machine can run, why not, and how to mend it.

Optional backends are asked inside their own check, so that one that is absent or broken becomes
a line of the report.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bsmamba2 import __version__
from bsmamba2.errors import BsmError, PluginError

CORE = {  # import name -> distribution; without one of them nothing runs
    "numpy": "numpy",
    "scipy": "scipy",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "onnxruntime": "onnxruntime",
    "click": "click",
    "tqdm": "tqdm",
    "yaml": "PyYAML",
}
OPTIONAL = ("torch", "safetensors", "tensorboard", "pyworld", "pyfluidsynth", "onnx", "onnxscript",
            "av", "tensorrt", "tensorrt-rtx", "cupy-cuda13x", "mamba-ssm")  # fmt: skip
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")  # distributions of the same import name
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

    bsmamba2: str
    python: str
    platform: str
    cpus: int
    nvidia_driver: bool
    packages: dict[str, str | None]
    """Distribution -> version, None where it is not installed."""
    core: tuple[Check, ...]
    """Packages that do not load, and the embedded engine's run."""
    engines: tuple[Check, ...]
    """By suffix of the engine file."""
    cuda: tuple[Check, ...]
    """Libraries that 'bsm plugin build' makes, and what builds plans."""
    training: tuple[Check, ...]
    """What training takes beside an engine of PyTorch."""
    audio: tuple[Check, ...]
    """What decodes and encodes."""
    providers: tuple[str, ...]
    """ONNX Runtime's execution providers."""

    @property
    def ok(self) -> bool:
        """Whether the core works: separation with the embedded engine."""
        return all(check.ok for check in self.core)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"ok": self.ok} | asdict(self)


def examine() -> Report:
    """Looks at this machine; raises nothing for what is absent or broken."""
    providers = _providers()
    driver = Path("/proc/driver/nvidia/version").exists() or bool(shutil.which("nvidia-smi"))
    broken = [check for check in map(_import_check, CORE) if not check.ok]
    return Report(
        bsmamba2=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        cpus=_cpus(),
        nvidia_driver=driver,
        packages={name: version(name) for name in (*CORE.values(), _RUNTIMES[1], *OPTIONAL)},
        core=(*broken, _guarded("embedded engine", _run_embedded_engine)),
        engines=(
            _guarded(".onnx", lambda: _onnx_detail(providers, driver)),
            _guarded(".safetensors", _torch_detail),
            _guarded(".plan", _plan_detail),
        ),
        cuda=(
            _guarded("scan library", _scan_library_detail),
            _guarded("plan builder", _plan_builder_detail),
        ),
        training=(_guarded("practice songs", _practice_detail),),
        audio=tuple(_audio_checks()),
        providers=tuple(providers),
    )


def version(distribution: str) -> str | None:
    """Version of an installed distribution, without importing it."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


class _Unusable(Exception):  # noqa: N818  (a finding, not an error)
    """Why something does not work and how to mend it."""


def _guarded(name: str, find: Callable[[], str]) -> Check:
    """A check out of a function that returns a detail or raises."""
    try:
        return Check(name=name, ok=True, detail=find())
    except (_Unusable, BsmError) as error:
        return Check(name=name, ok=False, detail=str(error))
    except Exception as error:  # a backend may fail in any way; the report must not
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return Check(name=name, ok=False, detail=f"does not load: {text}")


def _import_check(module: str) -> Check:
    def find() -> str:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise _Unusable(f"is not installed: pip install {CORE[module]}") from error
        return "loads"

    return _guarded(CORE[module], find)


def _run_embedded_engine() -> str:
    """A mask of a few silent frames, computed."""
    import numpy as np

    from bsmamba2.runtime.engines import load_engine

    start = time.perf_counter()
    engine = load_engine("default")
    audio, provenance = engine.metadata.model.audio, engine.metadata.provenance
    spectrum = np.zeros((1, audio.channels, _TEST_FRAMES, audio.bins, 2), np.float32)
    mask = engine(spectrum)
    if mask.shape != spectrum.shape or not np.isfinite(mask).all():
        raise _Unusable("returns no usable mask: reinstall bsmamba2")
    trained = "" if provenance.trained else "; untrained, so its stems are no separation"
    return f"masks {_TEST_FRAMES} frames in {time.perf_counter() - start:.2f} s{trained}"


def _providers() -> list[str]:
    try:
        import onnxruntime

        return list(onnxruntime.get_available_providers())
    except Exception:  # the import check says why
        return []


def _onnx_detail(providers: list[str], driver: bool) -> str:
    import onnxruntime

    installed = [name for name in _RUNTIMES if version(name)]
    if len(installed) == 2:
        raise _Unusable(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "pip uninstall both, then install the one you want"
        )
    cuda = "CUDAExecutionProvider" in providers
    if driver and not cuda:
        device = "CPU; for the GPU: pip uninstall onnxruntime, pip install onnxruntime-gpu"
    else:
        device = "CUDA and CPU" if cuda else "CPU"
    package = installed[0] if installed else "onnxruntime"
    return f"{package} {onnxruntime.__version__} on {device}; {_cpu_scan()}"


def _cpu_scan() -> str:
    """What computes the scans of `.onnx` files on this CPU."""
    from bsmamba2.plugins.cpu_library import CpuScanLibrary, find_cpu_library

    slow = "scans by the body in the file, which makes a chunk take about twice as long: "
    path = find_cpu_library()
    if path is None:
        return f"{slow}install a C++ compiler (g++ or clang++), then bsmamba2 again from its source"
    try:
        return f"native scans, {CpuScanLibrary(path).isa_name()}"
    except PluginError as error:
        return slow + str(error).rstrip(".")


def _torch_detail() -> str:
    absent = [name for name in ("torch", "safetensors") if not version(name)]
    if absent:
        raise _Unusable(f"{' and '.join(absent)} not installed: pip install 'bsmamba2[train]'")
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} on CPU"
    return f"torch {torch.__version__} on {torch.cuda.get_device_name()}"


def _plan_detail() -> str:
    from bsmamba2.runtime.engines.tensorrt.device import open_device

    problems: list[str] = []
    runtimes = _tensorrt_runtimes(problems)
    gpu = ""
    try:
        device = open_device()
        gpu = f"{device.name}, compute capability {device.capability}"
    except BsmError as error:
        problems.append(str(error).rstrip("."))
    _check_plugin(problems)
    if problems:
        raise _Unusable("; ".join(problems))
    return f"{' and '.join(runtimes)} on {gpu}"


def _check_plugin(problems: list[str]) -> None:
    """Notes that the plugin is not built, or that its cache cannot be used."""
    from bsmamba2.plugins.build import find_libraries

    try:
        if find_libraries(plugin=True) is None:
            problems.append("the plugin is not built: bsm plugin build")
    except BsmError as error:
        problems.append(str(error).rstrip("."))


def _tensorrt_runtimes(problems: list[str]) -> list[str]:
    """The installed modules with their versions; notes those that do not load, and that none is."""
    from bsmamba2.formats.trt_plan import BUILDERS, TITLES

    found: list[str] = []
    broken = False
    for name, module in BUILDERS.items():
        try:
            found.append(f"{TITLES[name]} {importlib.import_module(module).__version__}")
        except ModuleNotFoundError:
            continue
        except Exception as error:  # a wheel without its libraries fails in many ways
            broken = True
            problems.append(f"{TITLES[name]} does not load ({' '.join(str(error).split())[:200]})")
    if not found and not broken:
        problems.append("TensorRT is not installed: pip install 'bsmamba2[trt]'")
    return found


def _scan_library_detail() -> str:
    from bsmamba2.plugins.architectures import describe, gpus
    from bsmamba2.plugins.build import find_libraries
    from bsmamba2.plugins.toolchain import find_toolchain

    libraries = find_libraries()
    if not libraries:
        release = find_toolchain().release  # raises what is missing
        command = "bsm plugin build" if gpus() else "bsm plugin build --arch all"
        raise _Unusable(f"not built: {command} (nvcc {release} is here)")
    plugin = "with" if find_libraries(plugin=True) else "without"
    return f"for {describe(libraries.architectures)}, {plugin} the TensorRT plugin"


def _plan_builder_detail() -> str:
    from bsmamba2.export.plan.builder import choose_builder

    return f"{choose_builder()}: bsm export MODEL --trt"


def _practice_detail() -> str:
    from bsmamba2.data.practice.installed import check_installed
    from bsmamba2.data.practice.sounds import find_soundfonts

    check_installed()
    return f"bsm practice, with {', '.join(path.name for path in find_soundfonts())}"


def _audio_checks() -> Iterator[Check]:
    yield _guarded("soundfile", _soundfile_detail)
    av = version("av")
    detail = (
        f"PyAV {av}: m4a, mp4 and others" if av else "not installed: pip install 'bsmamba2[av]'"
    )
    yield Check(name="m4a, mp4", ok=bool(av), detail=detail)


def _soundfile_detail() -> str:
    import soundfile

    known = soundfile.available_formats()
    library = f"libsndfile {soundfile.__libsndfile_version__}"
    absent = [name for name in _FORMATS if name not in known]
    if absent:
        raise _Unusable(f"{library} lacks {', '.join(absent)}: pip install --upgrade soundfile")
    return f"{library}: {', '.join(_FORMATS).lower()}"


def _cpus() -> int:
    """CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
