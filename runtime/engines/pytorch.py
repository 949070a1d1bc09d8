"""PyTorch: runs `.safetensors` checkpoints, folded for inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bsmamba2.errors import EngineError
from bsmamba2.models.folded import fold
from bsmamba2.models.load import load_network
from bsmamba2.runtime.engines.base import Spectrum, check_spectrum


class TorchEngine:
    """A checkpoint in PyTorch."""

    def __init__(self, path: Path, *, device: str = "auto", threads: int | None = None) -> None:
        """Loads and folds the network.

        Args:
            path: A checkpoint written by `bsm import`.
            device: "auto" takes the GPU when there is one; "cpu"; "cuda".
            threads: CPU threads of this process; None leaves PyTorch's setting.

        Raises:
            BsmError: A file of another network, or a missing device.
        """
        has_cuda = torch.cuda.is_available()
        if device == "cuda" and not has_cuda:
            raise EngineError("PyTorch finds no CUDA GPU here: use --device cpu.")
        if threads is not None:
            torch.set_num_threads(threads)
        network, self.artefact = load_network(path)
        self._device = torch.device("cuda" if has_cuda and device != "cpu" else "cpu")
        self._network = fold(network).to(self._device)

    def __call__(self, spectrum: Spectrum) -> Spectrum:
        """The mask; see `Engine`."""
        check_spectrum(spectrum, self.artefact.model.audio)
        with torch.inference_mode():
            try:
                mask = self._network(torch.from_numpy(spectrum).to(self._device))
            except RuntimeError as error:  # out of memory, above all
                first = (str(error).splitlines() or ["no reason given"])[0]
                raise EngineError(f"PyTorch failed: {first}") from error
        result: Spectrum = mask.contiguous().cpu().numpy()
        return result

    def describe(self) -> dict[str, Any]:
        """Backend, version, device and threads."""
        return {
            "backend": "pytorch",
            "version": torch.__version__,
            "device": self._device.type,
            "threads": torch.get_num_threads(),
        }
