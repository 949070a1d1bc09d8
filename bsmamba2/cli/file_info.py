"""What a file is, without torch, onnx or its tensors in memory.

One record of plain values for a configuration, a checkpoint and an ONNX engine alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bsmamba2.config.file import load_config
from bsmamba2.config.model import model_config
from bsmamba2.config.reading import config_names
from bsmamba2.errors import CheckpointError
from bsmamba2.formats.metadata import MaskParity, Metadata, PrecisionCheck, parse_metadata
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.formats.operator import NAME, SCAN_NODE
from bsmamba2.formats.tensors import check_shapes, parameter_count, tensor_shapes
from bsmamba2.formats.trt_plan import TITLES, read_plan, read_sidecar, sidecar_metadata
from bsmamba2.system.files import existing_file, read_safetensors_header, sha256_file

Record = dict[str, Any]


def inspect_metadata(name_or_path: str | Path) -> Record:
    """Describes a configuration, a checkpoint or an engine.

    Args:
        name_or_path: Name of a configuration in the package, "default" for the engine in it, or
            a `.yaml`, `.safetensors`, `.onnx` or `.plan` file.

    Returns:
        kind, file, parameters, tensors, sha256 (None for a configuration) and config; for files
        also size_bytes, written_by, precision, parity, checks, provenance and card; for ONNX also
        opset, opsets, scan_nodes, functions, graph_parameters and graph_tensors; for a plan also
        plan, a `PlanRecord`.

    Raises:
        BsmError: No such file.
        ConfigError: No such configuration, or a wrong one.
        CheckpointError: A file of another tool, damaged, or one to be imported first.
        EngineError: A plan that is not the one of its sidecar.
    """
    path = Path(name_or_path)
    if str(name_or_path) == "default":
        from bsmamba2.runtime.engines import default_engine_path

        path = default_engine_path()
    if str(name_or_path) in config_names() or path.suffix in (".yaml", ".yml", ""):
        return _inspect_config(str(name_or_path))
    path = existing_file(path)
    if path.suffix == ".safetensors":
        return _inspect_safetensors(path)
    if path.suffix == ".onnx":
        return _inspect_onnx(path)
    if path.suffix == ".plan":
        return _inspect_plan(path)
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise CheckpointError(
            f"{path} is a foreign checkpoint: import it first with "
            f"'bsm import {path} -o {path.with_suffix('.safetensors')}'."
        )
    raise CheckpointError(
        f"{path} is nothing that 'bsm info' describes: name a .safetensors, .onnx, .plan or .yaml "
        f"file, or a configuration ({', '.join(config_names())})."
    )


def lines(record: Record) -> Iterator[tuple[str, str]]:
    """A record as labels and texts for people, in reading order."""
    config, network = record["config"], record["config"]["network"]
    audio = config["audio"]
    yield "kind", record["kind"]
    yield "file", record["file"]
    if record["sha256"]:
        yield "size", f"{record['size_bytes'] / 1e6:.1f} MB"
        yield "SHA-256", record["sha256"]
        yield "written by", f"bsmamba2 {record['written_by']}"
    yield "parameters", f"{record['parameters']:,} in {record['tensors']} tensors"
    bands = sum(count for _, count in network["bands"])
    yield "network", f"{network['layers']} layers, d_model {network['d_model']}, {bands} bands"
    expand, state = network["expand"], network["d_state"]
    yield "Mamba2", f"expand {expand}, headdim {network['headdim']}, d_state {state}"
    yield "audio", f"{audio['sample_rate']} Hz, {audio['channels']} channels, {audio['chunk_s']} s"
    yield "spectrum", f"n_fft {audio['n_fft']}, hop {audio['hop']}"
    yield "target", audio["target"]
    if "graph_parameters" in record:
        yield from _graph_lines(record)
    if "plan" in record:
        yield from _plan_lines(record["plan"])
    if record["sha256"]:
        yield from _provenance_lines(record)


def _graph_lines(record: Record) -> Iterator[tuple[str, str]]:
    scans, size = record["scan_nodes"], record["graph_parameters"]
    yield "graph", f"{size:,} numbers in {record['graph_tensors']} tensors, folded"
    body = "with" if SCAN_NODE in map(tuple, record["functions"]) else "without"
    yield "scan nodes", f"{scans} {NAME}, {body} a body in standard operators"
    others = [f"{domain} {version}" for domain, version in record["opsets"].items() if domain]
    yield "opset", f"{record['opset']}" + (f" ({', '.join(others)})" if others else "")


def _plan_lines(plan: Record) -> Iterator[tuple[str, str]]:
    title, plugin, gpus = TITLES[plan["builder"]], plan["plugin"], ", ".join(plan["architectures"])
    yield "built with", f"{title} {plan['builder_version']}"
    yield "built from", f"{plan['onnx']}, SHA-256 {plan['onnx_sha256']}"
    yield "for GPUs of", f"compute capability {gpus}" if gpus else f"any kind that {title} takes"
    for label, values in (("chunks at a time", plan["batch"]), ("frames", plan["frames"])):
        fewest, optimal, most = values
        varying = f"{fewest} to {most}, fastest at {optimal}"
        yield label, varying if fewest < most else str(most)
    yield "plugin layers", f"{plan['plugin_layers']} of version {plugin['version']}"
    yield "plugin's SHA-256", plugin["library_sha256"]
    yield "built by", plan["command"]
    yield "parity", "of the ONNX file, below; 'bsm parity' measures the plan's own"


def _provenance_lines(record: Record) -> Iterator[tuple[str, str]]:
    provenance = record["provenance"]
    yield "precision", record["precision"]
    for figure in record["parity"]:
        yield f"parity, {figure['frames']} frames", str(MaskParity(**figure))
    for check in record["checks"]:
        yield f"cost of {record['precision']}", str(PrecisionCheck(**check))
    yield "weights", provenance["source"]
    if provenance["source_sha256"]:
        yield "their SHA-256", provenance["source_sha256"]
    yield "trained", "yes" if provenance["trained"] else "no: random weights separate nothing"
    card = record["card"]
    licence = card["licence"] if card else provenance["licence"]
    yield "licence", licence + (": do not redistribute" if licence == "undeclared" else "")
    if card:
        yield "trained on", card["training_data"]
        yield from (("measured", score) for score in card["scores"])
        yield "limits", card["limits"]
        yield "recipe", card["recipe"]


def _inspect_config(name: str) -> Record:
    config = load_config(name)
    return {
        "kind": "configuration",
        "file": name,
        "parameters": parameter_count(config.model),
        "tensors": len(tensor_shapes(config.model)),
        "sha256": None,
        "config": asdict(config),
    }


def _inspect_safetensors(path: Path) -> Record:
    shapes, pairs = read_safetensors_header(path)
    record = _file_record(path, "checkpoint", pairs)
    check_shapes(shapes, model_config(record["config"]), path)
    return record


def _inspect_onnx(path: Path) -> Record:
    file = read_onnx_file(path)
    return _file_record(path, "ONNX engine", file.metadata) | {
        "opset": file.opsets.get("", 0),
        "opsets": dict(file.opsets),
        "scan_nodes": file.node_counts.get(SCAN_NODE, 0),
        "functions": [list(function) for function in file.functions],
        "graph_parameters": sum(math.prod(shape) for shape in file.initializers.values()),
        "graph_tensors": len(file.initializers),
    }


def _inspect_plan(path: Path) -> Record:
    plan, _ = read_sidecar(path)
    read_plan(path, plan)
    return _file_record(path, "TensorRT plan", sidecar_metadata(path)) | {"plan": asdict(plan)}


def _file_record(path: Path, kind: str, pairs: Mapping[str, str]) -> Record:
    metadata: Metadata = parse_metadata(pairs, path)
    return {
        "kind": kind,
        "file": str(path),
        "size_bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "written_by": pairs.get("bsm.version", "").strip('"') or "an unknown version",
        "parameters": parameter_count(metadata.model),
        "tensors": len(tensor_shapes(metadata.model)),
        "precision": metadata.precision,
        "parity": [asdict(figure) for figure in metadata.parity],
        "checks": [asdict(check) for check in metadata.checks],
        "provenance": asdict(metadata.provenance),
        "card": asdict(metadata.card) if metadata.card else None,
        "config": metadata.model.to_dict(),
    }
