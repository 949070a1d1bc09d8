"""ONNX Runtime: runs `.onnx` files on a CPU, and on a GPU with onnxruntime-gpu."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from bsmamba2.artefact import read_metadata
from bsmamba2.errors import EngineError
from bsmamba2.onnx_file import SCAN_NODE, read_onnx_file
from bsmamba2.runtime.engines.base import Spectrum, check_spectrum

_CUDA = "CUDAExecutionProvider"
_ERRORS_ONLY = 3  # severity of ONNX Runtime's log


class OnnxEngine:
    """An exported network in ONNX Runtime."""

    def __init__(self, path: Path, *, device: str = "auto", threads: int | None = None) -> None:
        """Checks what the file is, then loads it.

        Args:
            path: A file written by `bsm export`.
            device: "auto" takes the GPU when ONNX Runtime can use it; "cpu"; "cuda".
            threads: CPU threads; None takes all cores.

        Raises:
            BsmError: A file of another network, a missing device, or ONNX Runtime's own refusal.
        """
        file = read_onnx_file(path)
        self.artefact = read_metadata(file.metadata, path)
        scans, blocks = file.node_counts.get(SCAN_NODE, 0), 2 * self.artefact.model.network.layers
        if scans != blocks:
            raise EngineError(
                f"{path} has {scans} scan nodes for {blocks} blocks: export the model again."
            )
        try:
            self._session = ort.InferenceSession(
                str(path), _options(threads), providers=_providers(device)
            )
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise EngineError(f"ONNX Runtime cannot load {path}: {_sentence(error)}") from error
        self._threads = threads

    def __call__(self, spectrum: Spectrum) -> Spectrum:
        """The mask; see `Engine`."""
        check_spectrum(spectrum, self.artefact.model.audio)
        try:
            (mask,) = self._session.run(None, {"spectrum": spectrum})
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {_sentence(error)}") from error
        return np.asarray(mask, np.float32)

    def describe(self) -> dict[str, Any]:
        """Backend, version, device and threads."""
        return {
            "backend": "onnxruntime",
            "version": ort.__version__,
            "device": "cuda" if _CUDA in self._session.get_providers() else "cpu",
            "threads": self._threads,
        }


def _options(threads: int | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    # Both keep one buffer a tensor shape for the whole run. Time and band blocks have different
    # shapes, so a chunk of the full network takes 16 GB with them and 3.6 GB without, and twice
    # the time.
    options.enable_mem_pattern = False
    options.enable_mem_reuse = False
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _providers(device: str) -> list[str]:
    available = ort.get_available_providers()
    if device == "cuda" and _CUDA not in available:
        raise EngineError(
            "This ONNX Runtime has no CUDA provider: pip uninstall onnxruntime, "
            "then pip install onnxruntime-gpu."
        )
    wanted = [_CUDA] if device != "cpu" and _CUDA in available else []
    return [*wanted, "CPUExecutionProvider"]


def _sentence(error: Exception) -> str:
    """The first line of a backend's message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
