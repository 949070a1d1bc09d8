"""PyTorch: runs `.safetensors` checkpoints, folded for inference.

On a GPU the scan is the project's own kernel where it is built (`bsmamba2.models.cuda_scan`), and
the whole pass is one CUDA graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bsmamba2.errors import EngineError, short_reason
from bsmamba2.models.folded import fold
from bsmamba2.models.graphed import GraphedNetwork
from bsmamba2.models.load import load_network
from bsmamba2.runtime.engines.base import Spectrum, check_spectrum

_DTYPES = {"float32": torch.float32, "float16": torch.float16}


class TorchEngine:
    """A checkpoint in PyTorch."""

    def __init__(
        self,
        path: Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        precision: str = "float32",
    ) -> None:
        """Loads and folds the network.

        Args:
            path: A checkpoint written by `bsm import`.
            device: "auto" takes the GPU when there is one; "cpu"; "cuda".
            threads: CPU threads of this process; None leaves PyTorch's setting.
            precision: "float32", or on a GPU "float16" for the matrix products.

        Raises:
            BsmError: A file of another network, or a missing device.
        """
        has_cuda = torch.cuda.is_available()
        if device == "cuda" and not has_cuda:
            raise EngineError("PyTorch finds no CUDA GPU here: use --device cpu.")
        self._device = torch.device("cuda" if has_cuda and device != "cpu" else "cpu")
        if precision == "float16" and self._device.type == "cpu":
            raise EngineError("float16 in PyTorch is for a GPU: use --precision float32.")
        if threads is not None:
            torch.set_num_threads(threads)
        network, self.artefact = load_network(path)
        folded = fold(network, _DTYPES[precision]).to(self._device)
        self._precision = precision
        self._network = folded if self._device.type == "cpu" else GraphedNetwork(folded)

    def __call__(self, spectrum: Spectrum) -> Spectrum:
        """The mask; see `Engine`."""
        check_spectrum(spectrum, self.artefact.model.audio)
        with torch.inference_mode():
            try:
                mask = self._network(torch.from_numpy(spectrum).to(self._device))
            except RuntimeError as error:  # out of memory, above all
                raise EngineError(
                    f"PyTorch failed: {short_reason(error)}; free memory, or try the .onnx of it."
                ) from error
        result: Spectrum = mask.contiguous().cpu().numpy()
        return result

    def chunk_memory(self) -> tuple[int, int] | None:
        """Bytes of the GPU that a chunk takes, and that are free; None on a CPU.

        See `bsmamba2.runtime.batching.MeasuringEngine`.
        """
        if self._device.type == "cpu":
            return None
        audio = self.artefact.model.audio
        before = torch.cuda.memory_reserved(self._device)
        self(np.zeros((1, audio.channels, audio.chunk_frames, audio.bins, 2), np.float32))
        taken = torch.cuda.memory_reserved(self._device) - before
        return taken, torch.cuda.mem_get_info(self._device)[0]

    def describe(self) -> dict[str, Any]:
        """Backend, version, device, precision and threads."""
        return {
            "backend": "pytorch",
            "version": torch.__version__,
            "device": self._device.type,
            "precision": self._precision,
            "threads": torch.get_num_threads(),
        }
