"""Describes configurations, checkpoints and engines by records of plain values.

Neither torch nor onnx is imported, and no tensors are loaded.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bsmamba2.config.file import load_config
from bsmamba2.config.model import ModelConfig
from bsmamba2.config.reading import config_names
from bsmamba2.errors import CheckpointError
from bsmamba2.formats.metadata import MaskParity, PrecisionCheck, parse_metadata
from bsmamba2.formats.model_files import model_file
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.formats.operator import NAME, SCAN_NODE
from bsmamba2.formats.tensors import check_shapes, parameter_count, tensor_shapes
from bsmamba2.formats.trt_plan import TITLES, read_plan, read_sidecar, sidecar_metadata
from bsmamba2.runtime.engines import default_engine_path
from bsmamba2.system.files import read_safetensors_header, sha256_file

_IF_UNDECLARED = ": redistribute only weights of your own ('bsm export --card' states a licence)"


def inspect_file(name_or_path: str | Path) -> dict[str, Any]:
    """Describes a configuration, a checkpoint or an engine.

    Args:
        name_or_path: Name of a configuration in the package, "default" for the engine in it, or
            a `.yaml`, `.safetensors`, `.onnx` or `.plan` file.

    Returns:
        kind, file, parameters, tensors, sha256 (None for a configuration) and config. For files
        also size_bytes, written_by, precision, parity, checks, provenance, card and the stems that
        the network was trained on, if known. For ONNX also opset, opsets, scan_nodes,
        inlined_scans, functions, graph_parameters and graph_tensors. For a plan also plan, a
        `PlanRecord`.

    Raises:
        BsmError: The file or configuration does not exist, is invalid or damaged, or must be
            imported first.
    """
    path = default_engine_path() if str(name_or_path) == "default" else Path(name_or_path)
    if str(path) in config_names() or path.suffix in (".yaml", ".yml", ""):
        if str(path) not in config_names() and os.path.exists(path):  # False for impossible names
            model_file(path)
        config = load_config(str(path))
        about = {"kind": "configuration", "file": str(path), **_sizes(config.model)}
        return about | {"sha256": None, "config": asdict(config)}
    path = model_file(path)
    pairs: Mapping[str, str]
    details: dict[str, Any] = {}
    if path.suffix == ".safetensors":
        kind, (shapes, pairs) = "checkpoint", read_safetensors_header(path)
        check_shapes(shapes, parse_metadata(pairs, path).model, path)
    elif path.suffix == ".onnx":
        kind, file = "ONNX engine", read_onnx_file(path)
        pairs = file.metadata
        details = {
            "opset": file.opsets.get("", 0),
            "opsets": dict(file.opsets),
            "scan_nodes": file.scan_nodes,
            "inlined_scans": file.inlined_scans,
            "functions": [list(function) for function in file.functions],
            "graph_parameters": sum(math.prod(shape) for shape in file.initializers.values()),
            "graph_tensors": len(file.initializers),
        }
    elif path.suffix == ".plan":
        kind, (plan, _) = "TensorRT plan", read_sidecar(path)
        read_plan(path, plan)
        pairs, details = sidecar_metadata(path), {"plan": asdict(plan)}
    else:
        raise CheckpointError(
            f"'bsm info' cannot describe {path}: name a .safetensors, .onnx, .plan or .yaml file, "
            f"or a configuration ({', '.join(config_names())})."
        )
    metadata = parse_metadata(pairs, path)
    return {
        "kind": kind,
        "file": str(path),
        "size_bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "written_by": pairs.get("bsm.version", "").strip('"') or "an unknown version",
        **_sizes(metadata.model),
        "precision": metadata.precision,
        "parity": [asdict(figure) for figure in metadata.parity],
        "checks": [asdict(check) for check in metadata.checks],
        "provenance": asdict(metadata.provenance),
        "card": metadata.card and asdict(metadata.card),
        "stems": list(metadata.stems),
        "config": metadata.model.to_dict(),
        **details,
    }


def _sizes(model: ModelConfig) -> dict[str, int]:
    return {"parameters": parameter_count(model), "tensors": len(tensor_shapes(model))}


def lines(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields a record as labels and texts, in reading order."""
    network, audio = record["config"]["network"], record["config"]["audio"]
    yield "kind", record["kind"]
    yield "file", record["file"]
    if record["sha256"]:
        yield "size", f"{record['size_bytes'] / 1e6:.1f} MB"
        yield "SHA-256", record["sha256"]
        yield "written by", f"bsmamba2 {record['written_by']}"
    yield "parameters", f"{record['parameters']:,} in {record['tensors']} tensors"
    bands = sum(count for _, count in network["bands"])
    yield "network", f"{network['layers']} layers, d_model {network['d_model']}, {bands} bands"
    yield "Mamba2", "expand {expand}, headdim {headdim}, d_state {d_state}".format(**network)
    yield "audio", "{sample_rate} Hz, {channels} channels, chunks of {chunk_s} s".format(**audio)
    yield "spectrum", "n_fft {n_fft}, hop {hop}".format(**audio)
    yield "target", audio["target"]
    if record.get("stems"):
        yield "stems", ", ".join(record["stems"])
    if "opset" in record:
        yield from _graph_lines(record)
    if "plan" in record:
        yield from _plan_lines(record["plan"])
    if record["sha256"]:
        yield from _provenance_lines(record)


def _graph_lines(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    size, tensors = record["graph_parameters"], record["graph_tensors"]
    yield "graph", f"{size:,} parameters in {tensors} tensors, folded"
    body = "with" if list(SCAN_NODE) in record["functions"] else "without"
    nodes = f"{record['scan_nodes']} {NAME}, {body} a body in standard operators"
    if (inlined := record["inlined_scans"]) and not record["scan_nodes"]:
        nodes = f"none: another tool has inlined {inlined} scans, which run as standard operators"
    yield "scan nodes", nodes
    others = ", ".join(f"{name} {version}" for name, version in record["opsets"].items() if name)
    yield "opset", f"{record['opset']}" + (f" ({others})" if others else "")


def _plan_lines(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    title, plugin, gpus = TITLES[plan["builder"]], plan["plugin"], ", ".join(plan["architectures"])
    yield "built with", f"{title} {plan['builder_version']}"
    yield "built from", f"{plan['onnx']}, SHA-256 {plan['onnx_sha256']}"
    yield "for GPUs of", f"compute capability {gpus}" if gpus else f"any kind that {title} supports"
    for label, (fewest, optimal, most) in (
        ("chunks at a time", plan["batch"]),
        ("frames", plan["frames"]),
    ):
        varying = f"{fewest} to {most}, fastest at {optimal}"
        yield label, varying if fewest < most else str(most)
    yield "plugin layers", f"{plan['plugin_layers']} of version {plugin['version']}"
    yield "plugin's SHA-256", plugin["library_sha256"]
    yield "command", plan["command"]
    yield "parity", "below, that of the ONNX file; 'bsm parity' measures the plan"


def _provenance_lines(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    provenance, card = record["provenance"], record["card"]
    yield "precision", record["precision"]
    for figure in record["parity"]:
        count = "1 frame" if figure["frames"] == 1 else f"{figure['frames']} frames"
        yield f"parity, {count}", str(MaskParity(**figure))
    for check in record["checks"]:
        yield f"loss in {record['precision']}", str(PrecisionCheck(**check))
    yield "weights", provenance["source"]
    if provenance["source_sha256"]:
        yield "weights' SHA-256", provenance["source_sha256"]
    yield (
        "trained",
        "yes" if provenance["trained"] else "no: random weights, which separate nothing",
    )
    licence = (card or provenance)["licence"]
    yield "licence", f"{licence}{_IF_UNDECLARED if licence == 'undeclared' else ''}"
    if card:
        yield "trained on", card["training_data"]
        yield from (("measured", score) for score in card["scores"])
        yield "limits", card["limits"]
        yield "recipe", card["recipe"]
