"""Runs a batch of chunks through all steps on the GPU.

    host -> pinned -> GPU: STFT -> network -> mask product -> inverse STFT -> pinned -> host

Everything is enqueued on the network's stream when the batch starts; the host waits only when it
needs the result.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bsmamba2.config.model import AudioConfig
from bsmamba2.errors import EngineError
from bsmamba2.runtime.engines.estimation import Chunks, finite_frames, masked
from bsmamba2.runtime.engines.stft import istft, stft
from bsmamba2.runtime.engines.tensorrt.device import Device, chunks_text, cuda_errors
from bsmamba2.runtime.engines.tensorrt.network import PlanNetwork
from bsmamba2.runtime.engines.tensorrt.runtime import PlanRuntime

Result = tuple[Chunks, NDArray[np.bool_]]
"""The target, and which of its frames are finite: (batch, frames); copies, not a slot's buffers."""


@dataclass(eq=False)
class StartedChunks:
    """Chunks that were started together in a slot."""

    count: int
    slot: PlanSlot | None
    """The slot that computes them; None when they are done."""
    outcome: Result | EngineError | None = None

    def result(self) -> Result:
        """Waits for the result; raises EngineError if CUDA failed."""
        if self.slot:
            self.slot.rest()
        assert self.outcome is not None
        if isinstance(self.outcome, EngineError):
            raise self.outcome
        return self.outcome


class PlanSlot:
    """A stream with all buffers for a batch, so that slots share nothing.

    Smaller batches are padded with silence: another shape would need another warm-up, another
    CUDA graph, and with TensorRT-RTX another compilation.
    """

    def __init__(
        self, runtime: PlanRuntime, device: Device, audio: AudioConfig, batch: int
    ) -> None:
        """Allocates everything.

        Args:
            runtime: The plan.
            device: The GPU.
            audio: Audio configuration of the plan's model.
            batch: Chunks per batch, within the plan's range.

        Raises:
            OutOfDeviceMemoryError: The batch is too large for the GPU.
            EngineError: TensorRT or CUDA failed.
        """
        from cupyx import empty_pinned  # pinned memory is copied while the host goes on

        self._audio, self._doing = audio, chunks_text(batch)
        self._started: StartedChunks | None = None
        spectra = (batch, audio.channels, audio.chunk_frames, audio.bins)
        self._network = PlanNetwork(runtime, device, (*spectra, 2))
        cufft, transforms = device.cupy.cuda.cufft, batch * audio.channels * audio.chunk_frames
        with cuda_errors(self._doing), self._network.stream:
            samples = (batch, audio.channels, audio.chunk_samples)
            self._samples = device.cupy.empty(samples, "float32")
            self._host_in = empty_pinned(samples, "float32")
            self._host_out = empty_pinned(samples, "float32")
            self._host_finite = empty_pinned((batch, audio.chunk_frames), "bool")
            # CuPy would share one cuFFT plan, with one workspace, between all streams.
            self._forward = cufft.Plan1d(audio.n_fft, cufft.CUFFT_R2C, transforms)
            self._inverse = cufft.Plan1d(audio.n_fft, cufft.CUFFT_C2R, transforms)

    def start(self, chunks: Chunks) -> StartedChunks:
        """Waits for the previous chunks, then enqueues all steps for up to `batch` chunks.

        Raises:
            OutOfDeviceMemoryError: Memory ran out; the slot is idle again.
            EngineError: TensorRT or CUDA failed; the slot is idle again.
        """
        self.rest()
        count = len(chunks)
        self._host_in[:count] = chunks
        self._host_in[count:] = 0
        try:
            with cuda_errors(self._doing), self._network.stream:
                self._enqueue()
        except EngineError:
            with contextlib.suppress(EngineError), cuda_errors("the same"):
                self._network.stream.synchronize()
            raise
        self._started = StartedChunks(count, self)
        return self._started

    def rest(self) -> None:
        """Waits for the chunks in flight, if any, and stores their outcome."""
        started, self._started = self._started, None
        if started is None:
            return
        started.slot, count = None, started.count
        try:
            with cuda_errors(self._doing):
                self._network.stream.synchronize()
            started.outcome = self._host_out[:count].copy(), self._host_finite[:count].copy()
        except EngineError as error:
            started.outcome = error

    def _enqueue(self) -> None:
        """Enqueues all steps from pinned memory to pinned memory on the network's stream."""
        audio, network, stream = self._audio, self._network, self._network.stream
        self._samples.set(self._host_in, stream=stream)
        with self._forward:
            spectrum = stft(self._samples, n_fft=audio.n_fft, hop=audio.hop)
        network.spectrum[...] = spectrum.view("float32").reshape(network.spectrum.shape)
        network.enqueue()
        estimate = masked(network.mask, spectrum)
        finite = finite_frames(estimate)
        with self._inverse:
            samples = istft(estimate, n_fft=audio.n_fft, hop=audio.hop, length=audio.chunk_samples)
        self._samples[...] = samples  # makes them contiguous; istft returns a slice
        self._samples.get(stream=stream, out=self._host_out, blocking=False)
        finite.get(stream=stream, out=self._host_finite, blocking=False)
