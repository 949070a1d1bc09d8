"""Checkpoints of other programs: the authors' Lightning file, MSST's, and safetensors.

They differ in the container, in where the state dict sits and in a prefix of its keys; the names
behind the prefix are those of `tensor_shapes`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from bsmamba2.checkpoints.torch_file import Placeholder, load_torch_file
from bsmamba2.config.reading import shown
from bsmamba2.errors import CheckpointError, short_reason
from bsmamba2.formats.metadata import Metadata, parse_metadata
from bsmamba2.formats.tensors import Shape
from bsmamba2.system.files import existing_file, read_safetensors_header

_PREFIXES = "model.", "module.", "_orig_mod."  # Lightning, DistributedDataParallel, torch.compile
_SPECTRA = "featurizer.", "inverse_featurizer.", "multi_featurizer."  # windows of STFTs
_NESTED = {  # key of the state dict -> what the file is
    "state_dict": "Lightning checkpoint",
    "model_state_dict": "MSST checkpoint",
    "model": "checkpoint",
}

Tensors = dict[str, torch.Tensor]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ForeignCheckpoint:
    """The network's tensors in a file, not yet copied from it."""

    path: Path
    ema: bool
    """They are the moving average that the authors' optimiser holds."""
    container: str
    """What the file is, in words."""
    shapes: Mapping[str, Shape]
    """Every tensor of the network that the file holds."""
    read: Callable[[str], torch.Tensor]
    """The tensor of a name, of the file's own type."""
    metadata: Metadata | None = None
    """What the file says of itself, where this tool wrote it."""


def open_foreign(path: str | Path, *, ema: bool = False) -> ForeignCheckpoint:
    """Opens a checkpoint of any known container; no code in it is run.

    Args:
        path: A `.ckpt`, `.pt`, `.pth` or `.safetensors` file; its content decides.
        ema: Take the moving average that the authors' optimiser holds.

    Raises:
        BsmError: No such file.
        CheckpointError: Not a checkpoint, damaged, unsafe, or without the weights asked for.
    """
    path = existing_file(path)
    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix == ".safetensors" or start[8:] == b"{":
        return _open_safetensors(path, ema)
    data, container = load_torch_file(path)
    state, kind = _state_dict(data, path)
    names = _network_names(state, path)
    tensors = {name: _plain_tensor(state[key], name, path) for name, key in names.items()}
    if ema:
        tensors = _moving_average(data, tensors, path)
    return ForeignCheckpoint(
        path=path,
        ema=ema,
        container=f"{kind}, {container} file",
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        read=lambda name: tensors[name].detach().clone(memory_format=torch.contiguous_format),
    )


def _open_safetensors(path: Path, ema: bool) -> ForeignCheckpoint:
    if ema:
        raise CheckpointError(f"{path} holds one set of weights: leave --ema out.")
    shapes, pairs = read_safetensors_header(path)
    names = _network_names(shapes, path)
    try:
        file: Any = safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged ({short_reason(error)}): download it again."
        ) from error
    return ForeignCheckpoint(
        path=path,
        ema=False,
        container="safetensors file",
        shapes={name: shapes[key] for name, key in names.items()},
        read=lambda name: file.get_tensor(names[name]),
        metadata=parse_metadata(pairs, path) if "bsm.config" in pairs else None,
    )


def _state_dict(data: Any, path: Path) -> tuple[dict[str, Any], str]:
    """The state dict, bare or nested, and what kind of file holds it."""
    if isinstance(data, Placeholder):
        raise CheckpointError(
            f"{path} holds an object of class {data.name}, not tensors by name: "
            "save its state_dict instead."
        )
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds no tensors by name: save a state_dict.")
    for key, kind in _NESTED.items():
        if isinstance(data.get(key), dict):
            return data[key], kind
    return data, "bare state dict"


def _network_names(keys: Iterable[Any], path: Path) -> dict[str, str]:
    """Name of the network's tensor -> key in the file, in the file's order."""
    names: dict[str, str] = {}
    for key in keys:
        if not isinstance(key, str):
            raise CheckpointError(f"{path} holds no tensors by name: save a state_dict.")
        name = key
        while prefix := next((p for p in _PREFIXES if name.startswith(p)), ""):
            name = name.removeprefix(prefix)
        if name.startswith(_SPECTRA):
            continue
        if name in names:
            raise CheckpointError(f"{path} holds {shown(name)} twice: save one state_dict alone.")
        names[name] = key
    return names


def _plain_tensor(value: Any, name: str, path: Path) -> torch.Tensor:
    if (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_nested
        and not value.is_quantized
        # More numbers than the storage has: a view that repeats them, as no weight does.
        and value.nbytes <= value.untyped_storage().nbytes()
    ):
        return value
    raise CheckpointError(
        f"{path} holds {shown(name)}, which is no plain tensor: is it a BSMamba2 checkpoint?"
    )


def _moving_average(data: dict[str, Any], tensors: Tensors, path: Path) -> Tensors:
    """The moving average under the names of the state dict, whose order it shares.

    The authors' optimiser keeps a tuple of tensors without names. A wrong order would go unseen
    where shapes repeat, so the averages are compared with the weights they belong to.
    """
    states = data.get("optimizer_states")
    averages: Any = None
    if isinstance(states, list) and states and isinstance(states[0], dict):
        averages = states[0].get("ema")
    if not isinstance(averages, (list, tuple)) or not averages:
        raise CheckpointError(f"{path} holds no moving average: leave --ema out.")
    ema = [_plain_tensor(value, f"ema {i}", path) for i, value in enumerate(averages)]
    if [tensor.shape for tensor in ema] != [tensor.shape for tensor in tensors.values()]:
        raise CheckpointError(
            f"{path} has a moving average of {len(ema)} tensors that do not fit its "
            f"{len(tensors)} weights one by one: leave --ema out."
        )
    averaged = dict(zip(tensors, ema, strict=True))
    if strangers := _unlike(tensors, averaged):
        log.warning(
            "%d matrices of the moving average are unlike the weights of the same place (%s): "
            "its order may differ; compare the separation with and without --ema.",
            len(strangers),
            ", ".join(strangers[:3]),
        )
    return averaged


def _unlike(tensors: Tensors, ema: Tensors) -> list[str]:
    """Names of the matrices whose average points elsewhere (cosine below 0.5)."""
    pairs = (
        (name, a.double().flatten(), ema[name].double().flatten())
        for name, a in tensors.items()
        if a.ndim > 1
    )
    return [name for name, a, b in pairs if torch.cosine_similarity(a, b, dim=0) < 0.5]
