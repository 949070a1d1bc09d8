"""From a checkpoint to an ONNX file that passed its gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper

from bsmamba2.artefact import Artefact, MaskParity, ModelCard
from bsmamba2.errors import ExportError
from bsmamba2.export.gates import check_parity, measure_parity
from bsmamba2.export.graph import export_graph
from bsmamba2.files import atomic_path
from bsmamba2.models.bsmamba2 import BSMamba2
from bsmamba2.models.folded import fold
from bsmamba2.models.load import load_network
from bsmamba2.runtime.engines.onnxruntime import OnnxEngine

Report = Callable[[str], None]


def export_onnx(
    source: str | Path,
    target: str | Path,
    *,
    seed: int = 0,
    card: ModelCard | None = None,
    report: Report = lambda _: None,
) -> Artefact:
    """Exports a network to ONNX and compares it with PyTorch before the file gets its name.

    Args:
        source: A `.safetensors` checkpoint, or a configuration for random weights.
        target: The `.onnx` file to write.
        seed: Of random weights.
        card: What a person should know of trained weights; goes into the file.
        report: Called with a sentence at each step.

    Returns:
        What the file says of itself, measured parity included.

    Raises:
        BsmError: An unusable source or target.
        ExportError: The exported mask is not PyTorch's; `target` is as it was.
    """
    target = Path(target)
    if target.suffix != ".onnx":
        raise ExportError(f"{target} must end in .onnx.")
    network, artefact = load_network(source, seed=seed)
    report(f"Read {source}: {artefact.provenance.source}.")
    if card:
        artefact = replace(artefact, card=card)
    model = export_graph(fold(network), artefact)
    report(f"Exported {len(model.graph.node)} nodes; comparing with PyTorch.")
    with atomic_path(target) as partial:
        onnx.save_model(model, partial)
        figures = _compare(network, partial, artefact, report)
        check_parity(figures)
        artefact = replace(artefact, parity=tuple(figures))
        del model.metadata_props[:]
        helper.set_model_props(model, artefact.to_metadata())
        onnx.save_model(model, partial)
    return artefact


def _compare(network: BSMamba2, path: Path, artefact: Artefact, report: Report) -> list[MaskParity]:
    """Parity of the file in ONNX Runtime, on the CPU."""

    @torch.inference_mode()
    def reference(spectrum: NDArray[np.float32]) -> NDArray[np.float32]:
        mask: NDArray[np.float32] = network(torch.from_numpy(spectrum)).numpy()
        return mask

    figures = []
    for figure in measure_parity(reference, OnnxEngine(path, device="cpu"), artefact.model.audio):
        report(f"{figure.frames:4d} frames: {figure}.")
        figures.append(figure)
    return figures
