"""TensorRT and TensorRT-RTX: run `.plan` files on a GPU, without torch.

`load_plan` goes from the outside in: the sidecar, the plan's bytes, this machine's software, its
GPU, and only then TensorRT. Of the files beside this one, `device` opens the GPU, `plan_checks`
refuses, `plan_runtime` deserialises (`kernel_cache` keeps what TensorRT-RTX compiles later),
`plan_network` runs the network, `plan_slot` the whole way of a batch, and `plan_estimator` keeps
two batches on their way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bsmamba2.errors import EngineError
from bsmamba2.formats.metadata import Metadata
from bsmamba2.formats.trt_plan import PlanRecord, read_plan, read_sidecar
from bsmamba2.runtime.engines.base import EngineOptions, Spectrum, check_spectrum
from bsmamba2.runtime.engines.tensorrt import checks as plan_checks
from bsmamba2.runtime.engines.tensorrt.device import (
    Device,
    OutOfDeviceMemoryError,
    cuda_errors,
    free_memory,
    no_memory,
    open_device,
    say_less,
)
from bsmamba2.runtime.engines.tensorrt.estimator import PlanEstimator
from bsmamba2.runtime.engines.tensorrt.network import PlanNetwork
from bsmamba2.runtime.engines.tensorrt.runtime import PlanRuntime
from bsmamba2.runtime.engines.tensorrt.slot import PlanSlot


def load_plan(path: Path, options: EngineOptions) -> PlanEngine:
    """Checks a plan, then loads it onto the current GPU.

    Args:
        path: A `.plan` with its sidecar beside it.
        options: Of these the device, which cannot be a CPU.

    Raises:
        BsmError: No such plan.
        CheckpointError: Its sidecar is missing or damaged.
        EngineError: It cannot run here, carries a library, or is not the file that its sidecar
            describes.
        PluginError: The plugin that it needs is not here.
        MissingExtraError: CuPy is not installed.
    """
    if options.device == "cpu":
        raise EngineError(f"{path} runs on a GPU only: use --device cuda, or the .onnx file.")
    record, metadata = read_sidecar(path)
    data = read_plan(path, record)
    from bsmamba2.plugins.tensorrt_library import load_plugin

    trt = plan_checks.find_builder(path, record)
    plugin = plan_checks.find_plugin(path, record)
    gpu = open_device()
    plan_checks.check_architecture(path, record, gpu.capability, gpu.name)
    load_plugin(trt, plugin)
    with cuda_errors(f"loading {path}"):
        runtime = PlanRuntime(trt, data, path, record, metadata, capability=gpu.capability)
    return PlanEngine(path, record, metadata, runtime, gpu)


class PlanEngine:
    """A plan on a GPU. Not for several threads at once."""

    device = "cuda"

    def __init__(
        self, path: Path, record: PlanRecord, metadata: Metadata, runtime: PlanRuntime, gpu: Device
    ) -> None:
        """Takes what `load_plan` has checked and loaded."""
        self.metadata = metadata
        self.precision = metadata.precision
        self.batch: tuple[int, int, int] | None = record.batch
        self.record = record
        self._path, self._runtime, self._gpu = path, runtime, gpu
        self._most = record.batch[2]  # chunks at a time; less where memory is short
        self._network: PlanNetwork | None = None
        self._estimator: tuple[int, PlanEstimator] | None = None

    def __call__(self, spectrum: Spectrum) -> Spectrum:
        """The mask; see `Engine`. Batches of any size, frames of the plan's range."""
        check_spectrum(spectrum, self.metadata.model.audio)
        plan_checks.check_sizes(self._path, self.record, 1, spectrum.shape[2])
        masks: list[Spectrum] = []
        at = 0
        while at < len(spectrum):
            some = spectrum[at : at + self._most]
            mask = self._mask(some)
            if isinstance(mask, OutOfDeviceMemoryError):
                self._shrink(mask)
                continue
            masks.append(mask)
            at += len(some)
        return np.concatenate(masks)

    def estimator(self, batch: int) -> PlanEstimator:
        """The way from chunks to the target in them on the GPU; see `EstimatingEngine`.

        Kept for the next one who asks for the same batch, with its memory and its graphs.

        Raises:
            EngineError: The plan does not take chunks of its model's length.
        """
        audio = self.metadata.model.audio
        plan_checks.check_sizes(self._path, self.record, 1, audio.chunk_frames)
        if self._estimator is None or self._estimator[0] != batch:
            self._estimator = None
            estimator = PlanEstimator(
                audio,
                min(batch, self._most),
                lambda size: PlanSlot(self._runtime, self._gpu, audio, size),
                self._free,
            )
            self._estimator = batch, estimator
        return self._estimator[1]

    def network(self, batch: int, frames: int) -> PlanNetwork:
        """The bare network for one shape, for measurements.

        Raises:
            EngineError: The plan does not take so many chunks or frames, or no memory.
        """
        plan_checks.check_sizes(self._path, self.record, batch, frames)
        audio = self.metadata.model.audio
        shape = (batch, audio.channels, frames, audio.bins, 2)
        return PlanNetwork(self._runtime, self._gpu, shape)

    def describe(self) -> dict[str, Any]:
        """Backend, version, device, precision and sizes."""
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

    def _mask(self, spectrum: Spectrum) -> Spectrum | OutOfDeviceMemoryError:
        """The mask of as many chunks as go at a time."""
        try:
            if self._network is None or self._network.spectrum.shape != spectrum.shape:
                self._network = None  # frees its memory first
                self._network = self.network(len(spectrum), spectrum.shape[2])
            network = self._network
            with cuda_errors("the network"), network.stream:
                network.spectrum.set(spectrum, stream=network.stream)
                network.enqueue()
                mask: Spectrum = network.mask.get(stream=network.stream)
            return mask
        except OutOfDeviceMemoryError as error:
            return OutOfDeviceMemoryError(str(error))  # without frames, which hold memory

    def _shrink(self, error: OutOfDeviceMemoryError) -> None:
        """Half the batch; raises `error` where there is no less.

        As much as before goes on where the estimator has given memory up.
        """
        others = self._estimator is not None and self._estimator[1].release()
        self._free()
        if others:
            return
        if self._most == 1:
            raise no_memory(error)
        self._most //= 2
        say_less(error, self._most)

    def _free(self) -> bool:
        """Gives back the network's memory, and what is gone already; True if there was one."""
        had_network, self._network = self._network is not None, None
        free_memory(self._gpu)
        return had_network
