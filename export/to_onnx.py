"""Export of a checkpoint to an ONNX file that has passed its gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, helper

from bsmamba2.errors import ExportError
from bsmamba2.evaluation.parity import LIMITS
from bsmamba2.evaluation.reference_excerpt import ReferenceExcerpt, load_reference_excerpt
from bsmamba2.export.onnx.graph import export_graph
from bsmamba2.export.onnx.quantise import quantise
from bsmamba2.export.precision import gates
from bsmamba2.export.precision.gates import (
    Mask,
    MaskFunction,
    Reference,
    check_parity,
    check_precision,
    measure_parity,
)
from bsmamba2.export.precision.rounding import RoundedNetwork
from bsmamba2.formats.metadata import Metadata, load_card
from bsmamba2.models.bsmamba2 import BSMamba2
from bsmamba2.models.folded import FoldedBSMamba2, fold
from bsmamba2.models.load import load_network
from bsmamba2.runtime.engines.base import EngineOptions
from bsmamba2.runtime.engines.onnxruntime import OnnxEngine
from bsmamba2.system.atomic import atomic_path, writing


def export_onnx(
    source: str | Path,
    target: str | Path,
    *,
    seed: int = 0,
    card: str | Path | None = None,
    precision: str = "float32",
    excerpt: str | Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Metadata:
    """Exports a network to ONNX and compares it with PyTorch before the file gets its name.

    Args:
        source: A `.safetensors` checkpoint, or a configuration for random weights.
        target: The `.onnx` file to write.
        seed: Seed of the random weights, if `source` is a configuration.
        card: A YAML file with a `ModelCard`, which goes into the ONNX file.
        precision: "float32", "float16" (matrices and their products) or "int8" (large products).
            Input, output and norms are float32 in all of them.
        excerpt: A song to measure a lower precision on, or None (see `load_reference_excerpt`).
        report: Called with a sentence at each step.

    Returns:
        The file's metadata, measured figures included.

    Raises:
        BsmError: The source, target or song is unusable.
        ExportError: The exported mask differs from PyTorch's, or the precision loses too much;
            `target` is left unchanged.
    """
    target = Path(target)
    if target.suffix != ".onnx":
        raise ExportError(f"{target} must end in .onnx.")
    if precision not in LIMITS:
        raise ExportError(f"Unknown precision '{precision}': choose {', '.join(LIMITS)}.")
    network, metadata = load_network(source, seed=seed)
    report(f"Read {source}: {metadata.provenance.source}.")
    known = load_card(card) if card else metadata.card
    metadata = replace(metadata, precision=precision, card=known)
    audio = metadata.model.audio
    music = None if precision == "float32" else load_reference_excerpt(excerpt, audio)
    folded = fold(network, torch.float16 if precision == "float16" else None)
    model = _graph(folded, metadata)
    report(f"Exported {len(model.graph.node)} nodes; comparing with PyTorch.")
    with atomic_path(target) as partial:
        with writing(target):
            onnx.save_model(model, partial)
        report(f"{precision}, {partial.stat().st_size / 1e6:.1f} MB.")
        metadata = _measured(network, folded, partial, metadata, music, report)
        helper.set_model_props(model, metadata.to_pairs())
        with writing(target):
            onnx.save_model(model, partial)
    if not metadata.provenance.trained:
        report("Random weights: the stems of this engine are meaningless.")
    return metadata


def _graph(folded: FoldedBSMamba2, metadata: Metadata) -> ModelProto:
    model = export_graph(folded, metadata)
    if metadata.precision == "int8":
        quantise(model)
        onnx.checker.check_model(model, full_check=True)
    return model


def _measured(
    network: BSMamba2,
    folded: FoldedBSMamba2,
    path: Path,
    metadata: Metadata,
    excerpt: ReferenceExcerpt | None,
    report: Callable[[str], None],
) -> Metadata:
    """Returns the metadata with the figures of all gates; raises ExportError if one fails."""

    @torch.inference_mode()
    def reference(spectrum: NDArray[np.float32]) -> Mask:
        mask: Mask = network(torch.from_numpy(spectrum)).numpy()
        return mask

    precision, audio = metadata.precision, metadata.model.audio
    # Measure the function body in the file: any ONNX runtime must be able to use it.
    engine = OnnxEngine(path, EngineOptions(device="cpu"), native_scan=False)
    # In lower precisions the excerpt replaces the last of these, a chunk of audio.
    frames = gates.PARITY_FRAMES[: None if precision == "float32" else -1]
    parity = []
    for figure in measure_parity(reference, engine, audio, frames):
        report(f"{figure.frames:4d} frames: {figure}.")
        parity.append(figure)
    check_parity(parity, precision)
    checks = []
    if excerpt:
        exact = Reference(reference, excerpt, audio)
        candidates: dict[str, MaskFunction] = {"ONNX Runtime on a CPU": engine}
        if precision == "float16":
            candidates["PyTorch, every value rounded to float16"] = RoundedNetwork(folded)
        for name, candidate in candidates.items():
            checks.append(check_precision(name, candidate, exact, precision))
            report(f"{checks[-1]}.")
    return replace(metadata, parity=tuple(parity), checks=tuple(checks))
