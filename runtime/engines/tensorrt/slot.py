"""One batch of chunks on its way through the GPU.

    host -> pinned -> GPU: STFT -> network -> mask product -> inverse STFT -> pinned -> host

All of it is enqueued on the network's stream when the batch starts; the host waits only when it
wants the result.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsmamba2.config.model import AudioConfig
from bsmamba2.errors import EngineError
from bsmamba2.runtime.engines.estimation import Chunks, finite_frames, masked
from bsmamba2.runtime.engines.stft import istft, stft
from bsmamba2.runtime.engines.tensorrt.device import Device, chunks_text, cuda_errors
from bsmamba2.runtime.engines.tensorrt.network import PlanNetwork
from bsmamba2.runtime.engines.tensorrt.runtime import PlanRuntime


class PlanSlot:
    """A stream with everything that a batch needs on it, so that slots share nothing.

    Smaller batches are filled up with silence: another shape would need another warm-up and
    another graph, and of TensorRT-RTX another compilation.

    Attributes:
        batch: Chunks that it takes, at most.
    """

    def __init__(
        self, runtime: PlanRuntime, device: Device, audio: AudioConfig, batch: int
    ) -> None:
        """Allocates everything.

        Args:
            runtime: The plan.
            device: The GPU.
            audio: Of the plan's model.
            batch: Chunks at a time, within the plan's range.

        Raises:
            OutOfDeviceMemoryError: So many chunks are too many for the GPU.
            EngineError: TensorRT or CUDA failed.
        """
        self.batch = batch
        self._audio = audio
        spectra = (batch, audio.channels, audio.chunk_frames, audio.bins)
        self._network = PlanNetwork(runtime, device, (*spectra, 2))
        with cuda_errors(chunks_text(batch)), self._network.stream:
            samples = (batch, audio.channels, audio.chunk_samples)
            self._samples = device.cupy.empty(samples, "float32")
            self._host_in = _pinned(samples, "float32")
            self._host_out = _pinned(samples, "float32")
            self._host_finite = _pinned((batch, audio.chunk_frames), "bool")
            self._transforms = _Transforms(device.cupy, audio, batch)

    def start(self, chunks: Chunks) -> None:
        """Enqueues the whole way of up to `batch` chunks; the slot must be at rest.

        Raises:
            OutOfDeviceMemoryError: There was no memory on the way; the slot is at rest again.
            EngineError: TensorRT or CUDA failed; as well.
        """
        count = len(chunks)
        self._host_in[:count] = chunks
        self._host_in[count:] = 0
        try:
            with cuda_errors(chunks_text(self.batch)), self._network.stream:
                self._enqueue()
        except EngineError:
            with contextlib.suppress(EngineError), cuda_errors("the same"):
                self._network.stream.synchronize()
            raise

    def wait(self, count: int) -> tuple[Chunks, NDArray[np.bool_]]:
        """Waits for what was started, which leaves the slot at rest.

        Args:
            count: Chunks that it was started with.

        Returns:
            The target in them, and which of its frames have numbers only: (count, frames). Both are
            the caller's own.

        Raises:
            OutOfDeviceMemoryError: There was no memory on the way.
            EngineError: CUDA failed.
        """
        with cuda_errors(chunks_text(self.batch)):
            self._network.stream.synchronize()
        return self._host_out[:count].copy(), self._host_finite[:count].copy()

    def _enqueue(self) -> None:
        """From pinned memory to pinned memory, on the current stream."""
        audio, network, stream = self._audio, self._network, self._network.stream
        self._samples.set(self._host_in, stream=stream)
        with self._transforms.forward:
            spectrum = stft(self._samples, n_fft=audio.n_fft, hop=audio.hop)
        network.spectrum[...] = spectrum.view("float32").reshape(network.spectrum.shape)
        network.enqueue()
        estimate = masked(network.mask, spectrum)
        finite = finite_frames(estimate)
        with self._transforms.inverse:
            samples = istft(estimate, n_fft=audio.n_fft, hop=audio.hop, length=audio.chunk_samples)
        self._samples[...] = samples  # contiguous, which a slice of the overlapped frames is not
        self._samples.get(stream=stream, out=self._host_out, blocking=False)
        finite.get(stream=stream, out=self._host_finite, blocking=False)


class _Transforms:
    """Plans of cuFFT, to be used in a `with`.

    CuPy would take the same plan, with the same scratch memory, on every stream.
    """

    def __init__(self, cupy: Any, audio: AudioConfig, batch: int) -> None:
        cufft, count = cupy.cuda.cufft, batch * audio.channels * audio.chunk_frames
        self.forward = cufft.Plan1d(audio.n_fft, cufft.CUFFT_R2C, count)
        self.inverse = cufft.Plan1d(audio.n_fft, cufft.CUFFT_C2R, count)


def _pinned(shape: tuple[int, ...], dtype: str) -> Any:
    """A NumPy array that the GPU can copy to and from while the host goes on."""
    from cupyx import empty_pinned

    return empty_pinned(shape, dtype)
