"""The names of `tensorrt` and `tensorrt_rtx` that the runtime uses; ONNX Runtime computes.

A plan of this fake consists of PLAIN, its sizes, and the bytes of the ONNX file.
"""

from __future__ import annotations

import json
from enum import Enum
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort

from fake_gpu.machine import CUDARuntimeError, Machine

PLAIN = b"PLAN"
SPECTRUM, MASK = "spectrum", "mask"
ACTIVATIONS = 3_000_000
"""Bytes of activations that one chunk takes."""

Strategy = Enum("Strategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED")
Specialization = Enum("Specialization", "LAZY EAGER NONE")
Severity = Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")


class ILogger:
    """Base of loggers."""

    def __init__(self) -> None:
        pass

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


def make_plan(onnx: bytes, batch: tuple[int, ...], frames: tuple[int, ...], kind: bytes) -> bytes:
    """A plan of this fake."""
    sizes = json.dumps([batch, frames]).encode()
    return kind + len(sizes).to_bytes(4, "little") + sizes + onnx


def make_module(machine: Machine, name: str, version: str, **quirks: Any) -> ModuleType:
    """A module for `sys.modules`.

    Args:
        machine: The GPU.
        name: `tensorrt` or `tensorrt_rtx`.
        version: Its `__version__`.
        quirks: Attributes to set on all contexts, such as `capturable=False`.
    """
    module = ModuleType(name)
    is_rtx = name == "tensorrt_rtx"
    vars(module).update(
        __version__=version,
        ILogger=ILogger,
        ExecutionContextAllocationStrategy=Strategy,
        Runtime=lambda logger: Runtime(machine, logger, is_rtx, quirks),
    )
    if is_rtx:
        module.DynamicShapesKernelSpecializationStrategy = Specialization  # type: ignore[attr-defined]
    return module


class Runtime:
    """Deserialises engines."""

    def __init__(self, machine: Machine, logger: ILogger, is_rtx: bool, quirks: Any) -> None:
        if machine.driver < machine.needed and not is_rtx:
            logger.log(Severity.WARNING, "CUDA initialization failure with error: 35. Please check")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._parts = machine, logger, is_rtx, quirks

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        machine, logger = self._parts[:2]
        if machine.driver < machine.needed:
            text = "driver version is insufficient for CUDA runtime version"
            logger.log(Severity.ERROR, f"Error Code 1: Cuda Runtime (cudaError 35: {text})")
            return None
        if data[:4] != PLAIN:
            logger.log(Severity.ERROR, "Serialization assertion magicTag failed.")
            return None
        return Engine(data[4:], *self._parts)


class RuntimeCache:
    """Kernels that TensorRT-RTX has compiled: here the shapes that have run."""

    def __init__(self) -> None:
        self.shapes: set[str] = set()

    def serialize(self) -> memoryview:
        return memoryview(json.dumps(sorted(self.shapes)).encode())

    def deserialize(self, blob: bytes) -> bool:
        try:
            self.shapes |= set(json.loads(blob))
        except ValueError:
            return False
        return True


class RuntimeConfig:
    """TensorRT-RTX's runtime configuration."""

    def __init__(self) -> None:
        self.strategy = Strategy.STATIC
        self.dynamic_shapes_kernel_specialization_strategy = Specialization.LAZY
        self.cache: RuntimeCache | None = None

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True

    def set_execution_context_allocation_strategy(self, strategy: Strategy) -> None:
        self.strategy = strategy


class Engine:
    """A network in ONNX Runtime."""

    def __init__(
        self, data: bytes, machine: Machine, logger: ILogger, is_rtx: bool, quirks: Any
    ) -> None:
        length = int.from_bytes(data[:4], "little")
        self.batch, self.frames = json.loads(data[4 : 4 + length])
        options = ort.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        self.session = ort.InferenceSession(data[4 + length :], options)
        self.machine, self.logger, self.quirks = machine, logger, quirks
        if is_rtx:
            self.create_runtime_config = RuntimeConfig
        self._is_rtx = is_rtx

    def create_execution_context(self, how: Any) -> Context | None:
        cache = None
        if self._is_rtx:
            cache = how.cache
            assert how.dynamic_shapes_kernel_specialization_strategy is Specialization.EAGER
            how = how.strategy
        assert how is Strategy.USER_MANAGED
        kind = RtxContext if self._is_rtx else Context
        context = kind(self)
        context.cache = cache
        for name, value in self.quirks.items():
            setattr(context, name, value)
        return context


class Context:
    """One execution at a time."""

    cache: RuntimeCache | None = None
    compute: Any = None
    """A function of the spectrum that replaces the ONNX file."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._profile = -1
        self._shape: tuple[int, ...] = ()
        self._warm = False
        self._memory = (0, 0)
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile = profile_index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        engine = self._engine
        fits = engine.batch[0] <= shape[0] <= engine.batch[2]
        fits = fits and engine.frames[0] <= shape[2] <= engine.frames[2]
        self._shape, self._warm = shape, False
        return name == SPECTRUM and self._profile == 0 and fits

    def update_device_memory_size_for_shapes(self) -> int:
        return ACTIVATIONS * self._shape[0]

    def set_device_memory(self, memory: int, size: int) -> None:
        self._memory = memory, size

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine, machine = self._engine, self._engine.machine
        (stream,) = (s for s in machine.streams if s.ptr == stream_handle)
        try:
            machine.note("execute", stream)
        except CUDARuntimeError as error:
            text = f"Error Code 1: Cuda Runtime (cudaError {error.status}: {error})"
            engine.logger.log(Severity.ERROR, text)
            return False
        if stream.captured is not None and not self._warm:
            engine.logger.log(Severity.ERROR, "Capture before a first run.")
            return False
        address, size = self._memory
        assert size >= ACTIVATIONS * self._shape[0]
        shape, addresses = self._shape, dict(self._addresses)
        nbytes = int(np.prod(shape)) * 4

        def tensor(name: str) -> np.ndarray:
            return machine.at(addresses[name], nbytes)[:nbytes].view(np.float32).reshape(shape)

        def work() -> None:
            machine.at(address, size)
            spectrum = tensor(SPECTRUM)
            if self.compute:
                mask = self.compute(spectrum)
            else:
                (mask,) = engine.session.run(None, {SPECTRUM: spectrum})
            np.copyto(tensor(MASK), mask)

        stream.enqueue(work)
        self._warm = True
        if self.cache and str(shape) not in self.cache.shapes:
            machine.log.append(("compile", stream.number))
            self.cache.shapes.add(str(shape))
        return True


class RtxContext(Context):
    """A context with the methods that only TensorRT-RTX has."""

    capturable = True

    def is_stream_capturable(self, stream: int) -> bool:
        return self.capturable
