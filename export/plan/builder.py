"""TensorRT and TensorRT-RTX as builders of plans: choosing one, its log, its progress."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from bsmamba2.errors import ExportError
from bsmamba2.formats.operator import NAME
from bsmamba2.formats.trt_plan import BUILDERS, TITLES
from bsmamba2.plugins.architectures import current_gpu, dotted

logger = logging.getLogger(__name__)

OLDEST = {"tensorrt": (10, 13), "tensorrt-rtx": (1, 2)}
"""The oldest versions that have everything used here."""
_INSTALL = {"tensorrt": "pip install 'bsmamba2[trt]'", "tensorrt-rtx": "pip install tensorrt-rtx"}
_LEVELS = {"WARNING": logging.WARNING, "INFO": logging.INFO, "VERBOSE": logging.DEBUG}
_PROGRESS_S = 5.0


@dataclass(frozen=True, kw_only=True)
class PlanBuilder:
    """A builder that works on this machine."""

    name: str
    """A key of BUILDERS."""
    trt: ModuleType
    """Its module."""
    architectures: tuple[str, ...]
    """GPUs that its plans are bound to; empty for TensorRT-RTX, which binds them to none."""

    def __str__(self) -> str:
        return f"{TITLES[self.name]} {self.trt.__version__}"


def choose_builder(name: str = "auto") -> PlanBuilder:
    """Returns a builder by name; "auto" is TensorRT where it can build, otherwise TensorRT-RTX.

    Raises:
        ExportError: The builder is not installed, does not load, is too old, or needs a GPU.
    """
    gpu = current_gpu()
    installed = [key for key, module in BUILDERS.items() if importlib.util.find_spec(module)]
    if name == "auto":
        if not installed:
            raise ExportError(
                "Neither TensorRT nor TensorRT-RTX is installed: pip install 'bsmamba2[trt]' on "
                "the machine with the GPU, or pip install 'bsmamba2[trt-rtx]', which builds "
                "without one."
            )
        name = installed[0] if gpu is not None else installed[-1]
    elif name not in installed:
        raise ExportError(f"{name} is not installed: {_INSTALL[name]}.")
    if name == "tensorrt" and gpu is None:
        raise ExportError(
            "TensorRT builds a plan only on the GPU that will run it, and this machine has none: "
            "build it there, or with TensorRT-RTX, which needs no GPU (pip install tensorrt-rtx, "
            "--builder tensorrt-rtx)."
        )
    bound = (dotted(gpu),) if name == "tensorrt" and gpu is not None else ()
    return PlanBuilder(name=name, trt=_load(name), architectures=bound)


def _load(name: str) -> ModuleType:
    """Imports a builder's module and checks its version."""
    try:
        trt = importlib.import_module(BUILDERS[name])
        version = str(trt.__version__)
    except Exception as error:  # a wheel without its libraries fails in many ways
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise ExportError(f"{name} does not load ({text}): install it again.") from error
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST[name]:
        oldest = ".".join(map(str, OLDEST[name]))
        raise ExportError(
            f"{name} {version} is too old; {oldest} or newer is needed: "
            f"pip install --upgrade {name}."
        )
    return trt


class BuilderLog:
    """Sends a builder's messages to `logging`, and keeps its errors for the caller to raise one."""

    def __init__(self) -> None:
        self._errors: list[str] = []
        self._warning = ""

    def add(self, severity: str, message: str) -> None:
        """Logs a message, or keeps an error for the caller; safe to call from any thread."""
        text = " ".join(message.split())
        if severity in _LEVELS:
            logger.log(_LEVELS[severity], "%s", text)
            self._warning = text if severity == "WARNING" else self._warning
        else:
            logger.debug("%s: %s", severity, text)
            self._errors.append(text)

    def last_error(self) -> str:
        """Returns the plugin's last error, otherwise the builder's.

        Failed CUDA calls only count if there is no other error: they are its consequences. Without
        any error, this is the last warning: TensorRT only warns if CUDA does not start.
        """
        ours = [error for error in self._errors if error.startswith(NAME)]
        telling = ours or [error for error in self._errors if "catchCudaError" not in error]
        return (telling or self._errors or [self._warning or "it does not say why"])[-1].rstrip(".")

    def warn_of_errors(self) -> None:
        """Logs, as warnings, the errors of a build that succeeded nevertheless."""
        for error in self._errors:
            logger.warning("%s", error)


def attach_log(trt: ModuleType, log: BuilderLog) -> Any:
    """Returns an `ILogger` that writes to `log`."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.add(severity.name, message)

    return Logger()


def attach_progress(
    trt: ModuleType,
    report: Callable[[str], None],
    goes_on: Callable[[], bool],
    interval_s: float = _PROGRESS_S,
) -> Any:
    """Returns an `IProgressMonitor` that reports every few seconds how far the builder is.

    Args:
        trt: The builder's module.
        report: Called with a sentence, from any thread.
        goes_on: Called at every step; False ends the build.
        interval_s: Seconds between two reports.
    """
    steps: dict[str, int] = {}
    said = time.monotonic()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, count: int) -> None:
            steps[phase] = count

        def step_complete(self, phase: str, step: int) -> bool:
            nonlocal said
            if time.monotonic() - said >= interval_s:
                said = time.monotonic()
                report(f"{phase}: {step + 1} of {steps.get(phase, step + 1)}.")
            return goes_on()

        def phase_finish(self, phase: str) -> None:
            pass

    return Monitor()
