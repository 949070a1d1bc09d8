"""Weights on disk: our safetensors files in and out, and the import of foreign checkpoints.

A file of ours holds the tensors of `tensor_shapes` in float32 and the `Metadata` in its metadata.
"""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from bsmamba2.checkpoints.foreign import ForeignCheckpoint, Tensors
from bsmamba2.config.file import load_config
from bsmamba2.errors import CheckpointError, short_reason
from bsmamba2.formats.metadata import Metadata, Provenance, parse_metadata
from bsmamba2.formats.tensors import Shape, check_shapes, listed, tensor_shapes
from bsmamba2.system.atomic import atomic_path, writing
from bsmamba2.system.files import existing_file, read_safetensors_header, sha256_file

_FLOATS = torch.float32, torch.float64, torch.bfloat16, torch.float16

log = logging.getLogger(__name__)


def save_weights(path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Metadata) -> None:
    """Writes a checkpoint, float32, atomically.

    Args:
        path: The file, `.safetensors`.
        tensors: The network's state dict.
        metadata: Configuration and provenance, written into the metadata.

    Raises:
        CheckpointError: The tensors are not those of the configuration.
        BsmError: The file cannot be written.
    """
    path = Path(path)
    with atomic_path(path) as partial, writing(path):
        write_weights(partial, tensors, metadata)


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Metadata) -> None:
    """As `save_weights`, but not atomically, and raises OSError where that fails.

    A safetensors file is header length, JSON header, numbers. The library shuffles the metadata;
    equal weights should make equal files, and equal hashes.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    check_shapes(shapes, metadata.model, path)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"} | metadata.to_pairs()}
    start = 0
    for name, tensor in tensors.items():
        end = start + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers start at a multiple of 8
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            numbers = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
            file.write(numbers.astype("<f4", copy=False).tobytes())


def load_weights(path: str | Path) -> tuple[Tensors, Metadata]:
    """Reads a checkpoint that `save_weights` wrote.

    Returns:
        The network's state dict, float32 on the CPU, and what the file says of itself.

    Raises:
        BsmError: No such file.
        CheckpointError: Damaged, of another tool, or not the tensors of its configuration.
    """
    path = existing_file(path)
    shapes, pairs = read_safetensors_header(path)
    metadata = parse_metadata(pairs, path)
    check_shapes(shapes, metadata.model, path)
    try:
        with safe_open(path, "pt") as file:
            tensors = _as_float32(path, tensor_shapes(metadata.model), file.get_tensor)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged ({short_reason(error)}): import it again."
        ) from error
    return tensors, metadata


def adopt(
    foreign: ForeignCheckpoint, *, config: str | Path | None = None
) -> tuple[Tensors, Metadata]:
    """The network in a checkpoint of another program.

    Args:
        foreign: The open file.
        config: Name or path of the configuration; `bsmamba2` where the file carries none.

    Returns:
        The network's state dict, float32, and its configuration and provenance.

    Raises:
        ConfigError: No such configuration.
        CheckpointError: Damaged, of another network, or with numbers that are not finite.
    """
    path, own = foreign.path, foreign.metadata
    name = config or ("its metadata" if own else "bsmamba2")
    model = own.model if own and config is None else load_config(name).model
    compared = f"; it was compared with '{name}', name its own configuration with --config"
    check_shapes(foreign.shapes, model, path, hint=compared)
    tensors = _as_float32(path, tensor_shapes(model), foreign.read)
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise CheckpointError(
            f"{path} has NaN or infinite numbers in {listed(broken)}: get an intact checkpoint."
        )
    provenance = own.provenance if own else None
    if provenance is None:
        source = f"{path.name} (EMA)" if foreign.ema else path.name
        provenance = Provenance(source=source, source_sha256=sha256_file(path), trained=True)
    return tensors, Metadata(model=model, provenance=provenance)


def _as_float32(
    path: Path, shapes: Mapping[str, Shape], read: Callable[[str], torch.Tensor]
) -> Tensors:
    """Reads every tensor; other floating types are converted, which is logged."""
    tensors, converted = {}, set()
    for name in shapes:
        tensor = read(name)
        if tensor.dtype not in _FLOATS:
            raise CheckpointError(f"{path} has '{name}' as {_dtype(tensor)}: save it as float32.")
        if tensor.dtype != torch.float32:
            converted.add(_dtype(tensor))
        tensors[name] = tensor.float()
    if converted:
        log.warning("%s holds %s: converted to float32.", path, " and ".join(sorted(converted)))
    return tensors


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
