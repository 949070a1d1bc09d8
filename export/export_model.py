"""From a checkpoint to an ONNX file that passed its gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from bsmamba2.export.precision.cost import Reference, RoundedNetwork, check_precision
from bsmamba2.export.precision.gates import MaskFunction, check_parity, measure_parity
from bsmamba2.formats.metadata import MaskParity, Metadata, ModelCard, PrecisionCheck
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
    card: ModelCard | None = None,
    precision: str = "float32",
    excerpt: str | Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Metadata:
    """Exports a network to ONNX and compares it with PyTorch before the file gets its name.

    Args:
        source: A `.safetensors` checkpoint, or a configuration for random weights.
        target: The `.onnx` file to write.
        seed: Of random weights.
        card: What a person should know of trained weights; goes into the file.
        precision: "float32"; "float16", whose matrices and products are that; or "int8", whose big
            products are. Input, output and norms are float32 in all of them.
        excerpt: A song to measure a lower precision on, or None (`load_reference_excerpt`).
        report: Called with a sentence at each step.

    Returns:
        What the file says of itself, measured figures included.

    Raises:
        BsmError: An unusable source, target or song.
        ExportError: The exported mask is not PyTorch's, or the precision costs too much; `target`
            is as it was.
    """
    target = Path(target)
    if target.suffix != ".onnx":
        raise ExportError(f"{target} must end in .onnx.")
    if precision not in LIMITS:
        raise ExportError(f"Unknown precision '{precision}': choose {', '.join(LIMITS)}.")
    network, metadata = load_network(source, seed=seed)
    report(f"Read {source}: {metadata.provenance.source}.")
    metadata = replace(metadata, precision=precision, card=card or metadata.card)
    heard = (
        None if precision == "float32" else load_reference_excerpt(excerpt, metadata.model.audio)
    )
    folded = fold(network, torch.float16 if precision == "float16" else None)
    model = _graph(folded, metadata)
    report(f"Exported {len(model.graph.node)} nodes; comparing with PyTorch.")
    with atomic_path(target) as partial:
        with writing(target):
            onnx.save_model(model, partial)
        report(f"{precision}, {partial.stat().st_size / 1e6:.1f} MB.")
        # The body in the file is what is measured: any ONNX runtime must be able to use it.
        engine = OnnxEngine(partial, EngineOptions(device="cpu"), native_scan=False)
        parity = _compare(_function(network), engine, metadata, report)
        checks = _check(network, folded, engine, metadata, heard, report) if heard else []
        metadata = replace(metadata, parity=tuple(parity), checks=tuple(checks))
        del model.metadata_props[:]
        helper.set_model_props(model, metadata.to_pairs())
        with writing(target):
            onnx.save_model(model, partial)
    return metadata


def _graph(folded: FoldedBSMamba2, metadata: Metadata) -> ModelProto:
    model = export_graph(folded, metadata)
    if metadata.precision == "int8":
        quantise(model)
        onnx.checker.check_model(model, full_check=True)
    return model


def _function(network: BSMamba2) -> MaskFunction:
    @torch.inference_mode()
    def reference(spectrum: NDArray[np.float32]) -> NDArray[np.float32]:
        mask: NDArray[np.float32] = network(torch.from_numpy(spectrum)).numpy()
        return mask

    return reference


def _compare(
    reference: MaskFunction, engine: OnnxEngine, metadata: Metadata, report: Callable[[str], None]
) -> list[MaskParity]:
    """Parity of the file in ONNX Runtime, on the CPU."""
    # In lower precisions a chunk of audio, the last of them, is the reference excerpt's.
    frames = gates.PARITY_FRAMES[: None if metadata.precision == "float32" else -1]
    figures = []
    for figure in measure_parity(reference, engine, metadata.model.audio, frames):
        report(f"{figure.frames:4d} frames: {figure}.")
        figures.append(figure)
    check_parity(figures, metadata.precision)
    return figures


def _check(
    network: BSMamba2,
    folded: FoldedBSMamba2,
    engine: OnnxEngine,
    metadata: Metadata,
    excerpt: ReferenceExcerpt,
    report: Callable[[str], None],
) -> list[PrecisionCheck]:
    """What the precision costs, in every engine that sees something of it."""
    reference = Reference(_function(network), excerpt, metadata.model.audio)
    checks = []
    for name, candidate in _candidates(folded, engine, metadata.precision):
        check = check_precision(name, candidate, reference, metadata.precision)
        report(f"{check}.")
        checks.append(check)
    return checks


def _candidates(
    folded: FoldedBSMamba2, engine: OnnxEngine, precision: str
) -> Iterator[tuple[str, MaskFunction]]:
    yield "ONNX Runtime on a CPU", engine
    if precision == "float16":
        yield "PyTorch, every value rounded to float16", RoundedNetwork(folded)
