"""PyTorch: runs `.safetensors` checkpoints, folded for inference.

On a GPU the scan runs in the project's own kernel if that is built (`bsmamba2.models.cuda_scan`),
and the whole forward pass is one CUDA graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bsmamba2.errors import EngineError, resource_error, short_reason
from bsmamba2.models.folded import fold
from bsmamba2.models.graphed import GraphedNetwork
from bsmamba2.models.load import load_network
from bsmamba2.runtime.engines.base import EngineOptions, Spectrum, Unpicklable, check_spectrum
from bsmamba2.system.cores import bounded_threads

_DTYPES = {"float32": torch.float32, "float16": torch.float16}


class TorchEngine(Unpicklable):
    """A checkpoint in PyTorch."""

    batch: tuple[int, int, int] | None = None

    def __init__(self, path: Path, options: EngineOptions) -> None:
        """Loads and folds the network.

        Args:
            path: A checkpoint written by `bsm import`.
            options: Device, threads (set for the whole process) and precision.

        Raises:
            BsmError: The file holds another network, or the device is not available.
        """
        has_cuda = torch.cuda.is_available()
        if options.device == "cuda" and not has_cuda:
            raise EngineError("PyTorch finds no CUDA GPU here: use --device cpu.")
        self.device = "cuda" if has_cuda and options.device != "cpu" else "cpu"
        self.precision = options.precision or "float32"
        if self.precision == "float16" and self.device == "cpu":
            raise EngineError("float16 in PyTorch needs a GPU: use --precision float32.")
        threads = bounded_threads(options.threads, torch.get_num_threads())
        if options.threads or threads < torch.get_num_threads():
            torch.set_num_threads(threads)
        network, self.metadata = load_network(path)
        folded = fold(network, _DTYPES[self.precision]).to(self.device)
        self._network = folded if self.device == "cpu" else GraphedNetwork(folded)

    def __call__(self, spectrum: Spectrum) -> Spectrum:
        """The mask; see `Engine`."""
        check_spectrum(spectrum, self.metadata.model.audio)
        with torch.inference_mode():
            try:
                mask = self._network(torch.from_numpy(spectrum).to(self.device))
            except RuntimeError as error:  # usually out of memory
                raise resource_error(error) or EngineError(
                    f"PyTorch failed: {short_reason(error)}; free memory, or try the model's "
                    ".onnx file."
                ) from error
        result: Spectrum = mask.contiguous().cpu().numpy()
        return result

    def chunk_memory(self) -> tuple[int, int] | None:
        """Returns the GPU memory that a chunk takes, and what is free, in bytes; None on a CPU.

        See `bsmamba2.runtime.separation.batching.MeasuringEngine`.
        """
        if self.device == "cpu":
            return None
        audio = self.metadata.model.audio
        before = torch.cuda.memory_reserved(self.device)
        self(np.zeros((1, audio.channels, audio.chunk_frames, audio.bins, 2), np.float32))
        taken = torch.cuda.memory_reserved(self.device) - before
        return taken, torch.cuda.mem_get_info(self.device)[0]

    def describe(self) -> dict[str, Any]:
        """Returns backend, version, device, precision and threads."""
        return {
            "backend": "pytorch",
            "version": torch.__version__,
            "device": self.device,
            "precision": self.precision,
            "threads": torch.get_num_threads(),
        }
