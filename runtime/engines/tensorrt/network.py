"""Runs a plan's network on its own stream, for spectra of one shape."""

from __future__ import annotations

import logging
from typing import Any

from bsmamba2.errors import EngineError, short_reason, warn_once
from bsmamba2.runtime.engines.tensorrt.device import Device, chunks_text, cuda_errors
from bsmamba2.runtime.engines.tensorrt.runtime import MASK, SPECTRUM, PlanRuntime

logger = logging.getLogger(__name__)

_DOING = "the network"


class PlanNetwork:
    """An execution context with a stream and all the memory that it needs; not thread-safe.

    The context gets memory for activations of its own shape, not of the plan's largest, so that
    smaller batches need less. The first run warms up; the second captures the network as a CUDA
    graph, which later runs replay.

    Attributes:
        stream: The CuPy stream on which everything is enqueued.
        spectrum: (batch, channels, frames, bins, 2) float32 on the GPU, for the caller to fill.
        mask: The result, of the same shape; valid once `stream` has passed `enqueue`.
    """

    def __init__(self, runtime: PlanRuntime, device: Device, shape: tuple[int, ...]) -> None:
        """Allocates everything.

        Args:
            runtime: The plan.
            device: The GPU.
            shape: Shape of the spectra, within the plan's ranges.

        Raises:
            OutOfDeviceMemoryError: The shape is too large for the GPU.
            EngineError: TensorRT or CUDA failed.
        """
        cupy = device.cupy
        self._runtime = runtime
        self._runs = 0
        self._graph: Any = None
        with cuda_errors(f"{chunks_text(shape[0])} of {shape[2]} frames"):
            self.stream = cupy.cuda.Stream(non_blocking=True)
            with self.stream:
                self.spectrum = cupy.empty(shape, "float32")
                self.mask = cupy.empty(shape, "float32")
                self._context = runtime.new_context()
                self._prepare(cupy)

    def enqueue(self) -> None:
        """Enqueues the network on `stream`: from `spectrum` to `mask`.

        Raises:
            OutOfDeviceMemoryError: The first runs allocate memory, and it ran out.
            EngineError: TensorRT or CUDA failed.
        """
        with cuda_errors(_DOING):
            if self._runs == 1:
                self._graph = self._captured()
            if self._graph is None:
                self._execute()
            else:
                self._graph.launch(self.stream)
        self._runs += 1
        if self._runs == 1:
            self._runtime.keep_kernels()

    def _prepare(self, cupy: Any) -> None:
        """Sets shape, memory and addresses of the context."""
        context, require = self._context, self._runtime.require
        profile = context.set_optimization_profile_async(0, self.stream.ptr)
        require(profile, "the setting of shapes")
        require(
            context.set_input_shape(SPECTRUM, tuple(self.spectrum.shape)), "the setting of shapes"
        )
        size = context.update_device_memory_size_for_shapes()
        self._activations = cupy.empty(max(size, 1), "uint8")
        context.set_device_memory(self._activations.data.ptr, size)
        for name, array in ((SPECTRUM, self.spectrum), (MASK, self.mask)):
            require(context.set_tensor_address(name, array.data.ptr), "the setting of addresses")

    def _execute(self) -> None:
        self._runtime.require(self._context.execute_async_v3(self.stream.ptr), _DOING)

    def _captured(self) -> Any:
        """Captures the network as a CUDA graph; warns once and returns None if that fails."""
        capturable = getattr(self._context, "is_stream_capturable", lambda _: True)
        try:
            if not capturable(self.stream.ptr):
                _explain("TensorRT-RTX reports that it cannot be captured")
                return None
            with cuda_errors(_DOING):
                self.stream.begin_capture()
                try:
                    self._execute()
                finally:
                    graph = self.stream.end_capture()
        except EngineError as error:
            _explain(short_reason(error))
            return None
        finally:
            self._runtime.forget_errors()
        return graph


def _explain(reason: str) -> None:
    warn_once(logger, f"The plan runs without a CUDA graph, as it cannot be captured: {reason}.")
