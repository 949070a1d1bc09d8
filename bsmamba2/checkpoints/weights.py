"""Reads and writes our safetensors files.

They hold the tensors of `tensor_shapes` in float32, and `Metadata` as their metadata.
"""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from bsmamba2.errors import CheckpointError, short_reason
from bsmamba2.formats.metadata import Metadata, parse_metadata
from bsmamba2.formats.model_files import model_file
from bsmamba2.formats.tensors import check_shapes, tensor_shapes
from bsmamba2.system.atomic import atomic_path, writing
from bsmamba2.system.files import read_safetensors_header

Tensors = dict[str, torch.Tensor]

_FLOATS = {torch.float64, torch.bfloat16, torch.float16}

log = logging.getLogger(__name__)


def save_weights(path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Metadata) -> None:
    """Writes a float32 checkpoint atomically.

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
    """Writes a checkpoint like `save_weights`, but not atomically; raises OSError on failure.

    A safetensors file is header length, JSON header, numbers. It is written here because the
    library shuffles the metadata, and equal weights should make equal files with equal hashes.
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
        The network's state dict, float32 on the CPU, and the file's metadata.

    Raises:
        BsmError: No such file.
        CheckpointError: The file is damaged, written by another tool, or does not fit its
            configuration.
    """
    path = model_file(path)
    shapes, pairs = read_safetensors_header(path)
    metadata = parse_metadata(pairs, path)
    check_shapes(shapes, metadata.model, path)
    tensors = read_tensors(path, {name: name for name in shapes})
    return as_float32(
        path, {name: tensors[name] for name in tensor_shapes(metadata.model)}
    ), metadata


def read_tensors(path: Path, keys: Mapping[str, str]) -> Tensors:
    """Reads tensors of a safetensors file by name -> key in the file; raises CheckpointError."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(key) for name, key in keys.items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged ({short_reason(error)}): download or import it again."
        ) from error


def as_float32(path: Path, tensors: Tensors) -> Tensors:
    """Converts tensors of other floating-point types to float32, with a warning in the log.

    Raises:
        CheckpointError: A tensor does not hold floating-point numbers.
    """
    kinds = {tensor.dtype for tensor in tensors.values()} - {torch.float32}
    names = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
    if kinds - _FLOATS:
        raise CheckpointError(f"{path} has tensors of {names}: save them as float32.")
    if kinds:
        log.warning("%s holds %s: converted to float32.", path, names)
    return {name: tensor.float() for name, tensor in tensors.items()}
