"""Deserialises a plan with TensorRT or TensorRT-RTX and creates execution contexts for it.

The two modules have the same interface, with two differences:

- TensorRT-RTX compiles kernels for the GPU when a context first meets a shape. `EAGER` makes it do
  so at once; by default it starts with generic kernels and replaces them later, which a captured
  CUDA graph would miss.
- Only TensorRT-RTX can tell whether a context's work can be captured (`network.py`).
"""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path
from types import ModuleType
from typing import Any

from bsmamba2.errors import EngineError, short_reason
from bsmamba2.formats.trt_plan import TITLES, PlanRecord
from bsmamba2.runtime.engines.tensorrt.device import device_error, driver_is_too_old
from bsmamba2.runtime.engines.tensorrt.kernel_cache import KernelCache

logger = logging.getLogger(__name__)

SPECTRUM, MASK = "spectrum", "mask"
"""Names of the input and the output."""

_NO_CUDA = "CUDA initialization failure"  # a mere warning in some releases of TensorRT


class PlanRuntime:
    """A deserialised plan; its contexts run independently of each other."""

    def __init__(
        self,
        trt: ModuleType,
        data: bytes,
        path: Path,
        record: PlanRecord,
        *,
        capability: str,
    ) -> None:
        """Deserialises a plan whose sidecar was checked (`checks.py`).

        Args:
            trt: The module that built the plan.
            data: The plan's bytes from `read_plan`; its plugin must be loaded.
            path: The plan's file, for messages.
            record: The plan's sidecar.
            capability: The GPU's compute capability, such as "9.0".

        Raises:
            EngineError: TensorRT refuses the plan.
        """
        self._trt, self._path, self._record = trt, path, record
        self._errors, self._logger = _attach_log(trt)
        try:
            self._runtime = trt.Runtime(self._logger)  # both must live as long as the engine
        except TypeError as error:  # raised by TensorRT's bindings if CUDA does not start
            raise self._refusal() from error
        self._runtime.engine_host_code_allowed = False
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise self._refusal()
        self._kernels = KernelCache(record, capability)

    def new_context(self) -> Any:
        """Creates an `IExecutionContext` without memory for its activations.

        Raises:
            EngineError: TensorRT cannot create one.
        """
        trt, engine = self._trt, self._engine
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if trt.__name__ == "tensorrt_rtx":
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            self._kernels.attach(config)
            config.dynamic_shapes_kernel_specialization_strategy = (
                trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context(strategy)
        self.require(context is not None, "a context of the plan")
        return context

    def keep_kernels(self) -> None:
        """Keeps the kernels that were compiled for a context; call it after the first run."""
        self._kernels.keep()
        self.forget_errors()

    def forget_errors(self) -> None:
        """Drops logged errors after a harmless failure, so that no later failure reports them."""
        self._errors.clear()

    def require(self, done: bool, doing: str) -> None:
        """Raises the error that TensorRT logged unless a call was successful.

        Args:
            done: What the call returned.
            doing: What the call does, for the sentence.

        Raises:
            OutOfDeviceMemoryError: TensorRT ran out of memory.
            EngineError: Anything else failed.
        """
        text = _first_cause(self._errors)
        self.forget_errors()
        if not done:
            raise device_error(doing, text)

    def _refusal(self) -> EngineError:
        text = _first_cause(self._errors)
        title = f"{TITLES[self._record.builder]} {self._trt.__version__}"
        if driver_is_too_old(text):
            return EngineError(
                f"{title} cannot load {self._path}: there is no NVIDIA driver here, or it is too "
                "old: install a newer one."
            )
        return EngineError(
            f"{title} cannot load {self._path} ({short_reason(text)}): run "
            f"'{self._record.command}'."
        )


def _attach_log(trt: ModuleType) -> tuple[deque[str], Any]:
    """Returns the last errors that TensorRT logged, and an `ILogger` that fills them."""
    errors: deque[str] = deque(maxlen=8)

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            text = " ".join(message.split())
            if severity.name in ("ERROR", "INTERNAL_ERROR") or _NO_CUDA in text:
                errors.append(text)  # `require` raises them
            logger.debug("%s: %s", severity.name, text)

    return errors, Logger()


def _first_cause(errors: deque[str]) -> str:
    """Returns the first error that names a cause: CUDA's failures are also logged without one."""
    own = [error for error in errors if "catchCudaError" not in error]
    return (own or list(errors) or ["it does not say why"])[0]
