"""TensorRT and TensorRT-RTX: runs `.plan` files on a GPU, without PyTorch.

`load_plan` checks from the outside in: the sidecar, the plan's bytes, this machine's software, its
GPU, and only then TensorRT. The modules beside this one: `checks` refuses plans that do not fit,
`device` opens the GPU, `runtime` deserialises the plan (`kernel_cache` keeps what TensorRT-RTX
compiles later), `network` runs the network, `slot` runs a batch from samples to samples,
`estimator` keeps two batches in flight, and `memory` makes batches smaller if they do not fit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bsmamba2.errors import EngineError
from bsmamba2.formats.metadata import Metadata
from bsmamba2.formats.trt_plan import PlanRecord, read_plan, read_sidecar
from bsmamba2.runtime.engines.base import EngineOptions, Spectrum, Unpicklable, check_spectrum
from bsmamba2.runtime.engines.tensorrt.checks import (
    check_architecture,
    check_sizes,
    find_builder,
    find_plugin,
)
from bsmamba2.runtime.engines.tensorrt.device import (
    Device,
    cuda_errors,
    free_memory,
    open_device,
)
from bsmamba2.runtime.engines.tensorrt.estimator import PlanEstimator
from bsmamba2.runtime.engines.tensorrt.memory import ChunkLimit
from bsmamba2.runtime.engines.tensorrt.network import PlanNetwork
from bsmamba2.runtime.engines.tensorrt.runtime import PlanRuntime
from bsmamba2.runtime.engines.tensorrt.slot import PlanSlot


def load_plan(path: Path, options: EngineOptions) -> PlanEngine:
    """Checks a plan, then loads it onto the current GPU.

    Args:
        path: A `.plan` file with its sidecar beside it.
        options: Only the device counts, which must not be "cpu".

    Raises:
        BsmError: The file does not exist.
        CheckpointError: Its sidecar is missing or damaged.
        EngineError: The plan cannot run here, carries a library, or is not the file that its
            sidecar describes.
        PluginError: The plugin that the plan needs is not built here.
        MissingExtraError: CuPy is not installed.
    """
    if options.device == "cpu":
        raise EngineError(f"{path} runs on a GPU only: use --device cuda, or the .onnx file.")
    record, metadata = read_sidecar(path)
    data = read_plan(path, record)
    from bsmamba2.plugins.tensorrt_library import load_plugin

    trt = find_builder(path, record)
    plugin = find_plugin(path, record)
    gpu = open_device()
    check_architecture(path, record, gpu.capability, gpu.name)
    load_plugin(trt, plugin)
    with cuda_errors(f"loading {path}"):
        runtime = PlanRuntime(trt, data, path, record, capability=gpu.capability)
    return PlanEngine(path, record, metadata, runtime, gpu)


class PlanEngine(Unpicklable):
    """A plan on a GPU; not thread-safe."""

    device = "cuda"

    def __init__(
        self, path: Path, record: PlanRecord, metadata: Metadata, runtime: PlanRuntime, gpu: Device
    ) -> None:
        """Wraps what `load_plan` has checked and loaded."""
        self.metadata = metadata
        self.precision = metadata.precision
        self.batch: tuple[int, int, int] | None = record.batch
        self.record = record
        self._path, self._runtime, self._gpu = path, runtime, gpu
        self._limit = ChunkLimit(record.batch[2])  # for __call__
        self._network: PlanNetwork | None = None  # for __call__
        self._estimator: tuple[int, PlanEstimator] | None = None

    def __call__(self, spectrum: Spectrum) -> Spectrum:
        """Computes the mask for any batch, frames within the plan's range; see `Engine`."""
        check_spectrum(spectrum, self.metadata.model.audio)
        check_sizes(self._path, self.record, 1, spectrum.shape[2])
        return np.concatenate(self._limit.in_parts(spectrum, self._mask, self._free))

    def estimator(self, batch: int) -> PlanEstimator:
        """Returns the estimator that does all steps on the GPU; see `EstimatingEngine`.

        It is kept, with its memory and CUDA graphs, until one for another batch is requested.

        Raises:
            EngineError: The plan does not take chunks of its model's length.
        """
        audio = self.metadata.model.audio
        check_sizes(self._path, self.record, 1, audio.chunk_frames)
        if self._estimator is None or self._estimator[0] != batch:
            self._estimator = None
            limit = ChunkLimit(min(batch, self._limit.chunks), PlanEstimator.in_flight)
            self._estimator = batch, PlanEstimator(audio, limit, self._make_slot, self._free)
        return self._estimator[1]

    def network(self, batch: int, frames: int) -> PlanNetwork:
        """Returns the bare network for one shape, for measurements.

        Raises:
            EngineError: The plan does not take this many chunks or frames, or memory ran out.
        """
        check_sizes(self._path, self.record, batch, frames)
        audio = self.metadata.model.audio
        shape = (batch, audio.channels, frames, audio.bins, 2)
        return PlanNetwork(self._runtime, self._gpu, shape)

    def describe(self) -> dict[str, Any]:
        """Returns backend, version, device, precision, and the ranges of batch and frames."""
        return {
            "backend": self.record.builder,
            "version": self.record.builder_version,
            "device": self.device,
            "gpu": self._gpu.name,
            "precision": self.precision,
            "threads": None,
            "batch": list(self.record.batch),
            "frames": list(self.record.frames),
        }

    def _mask(self, spectrum: Spectrum) -> Spectrum:
        """Computes the mask for as many chunks as fit at a time."""
        if self._network is None or self._network.spectrum.shape != spectrum.shape:
            self._free()
            self._network = self.network(len(spectrum), spectrum.shape[2])
        network = self._network
        with cuda_errors("the network"), network.stream:
            network.spectrum.set(spectrum, stream=network.stream)
            network.enqueue()
            mask: Spectrum = network.mask.get(stream=network.stream)
        return mask

    def _make_slot(self, batch: int) -> PlanSlot:
        """Makes a slot for the estimator, after freeing the network of `__call__`."""
        if self._network is not None:
            self._network = None
            free_memory(self._gpu)
        return PlanSlot(self._runtime, self._gpu, self.metadata.model.audio, batch)

    def _free(self) -> None:
        """Frees the memory of `__call__` and of the estimator, once its batches are done."""
        self._network = None
        if self._estimator is not None:
            self._estimator[1].release()
        free_memory(self._gpu)
