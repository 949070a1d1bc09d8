"""Imports checkpoints: the authors' Lightning file, MSST's, a training run's, and safetensors.

They differ in the container, in the place of the state dict and in a prefix of its keys; the names
after the prefix are those of `tensor_shapes`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bsmamba2.checkpoints.torch_file import Placeholder, load_torch_file
from bsmamba2.checkpoints.weights import Tensors, as_float32, read_tensors
from bsmamba2.config.file import load_config
from bsmamba2.config.model import model_config
from bsmamba2.config.reading import shown
from bsmamba2.errors import CheckpointError, ConfigError
from bsmamba2.formats.metadata import Metadata, Provenance, parse_metadata
from bsmamba2.formats.model_files import CONFIG_KEY
from bsmamba2.formats.tensors import check_shapes, listed, tensor_shapes
from bsmamba2.system.files import existing_file, read_safetensors_header, sha256_file

_PREFIXES = "model.", "module.", "_orig_mod."  # Lightning, DistributedDataParallel, torch.compile
_SPECTRA = "featurizer.", "inverse_featurizer.", "multi_featurizer."  # STFT windows
_RUN = {"format", "config", "tracks", "network", "ema", "optimizer", "step"}  # of `bsm train`
_NESTED = {  # key of the state dict -> what the file is
    "state_dict": "Lightning checkpoint",
    "model_state_dict": "MSST checkpoint",
    "model": "checkpoint",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ForeignCheckpoint:
    """The network from a checkpoint of another kind."""

    container: str
    """The kind of file, in words."""
    tensors: Tensors
    """The state dict, float32."""
    metadata: Metadata
    """Configuration and provenance; the file's own if this tool wrote it."""


def import_foreign(
    path: str | Path, *, ema: bool = False, config: str | Path | None = None
) -> ForeignCheckpoint:
    """Reads a checkpoint of any known container; no code in it is run.

    Args:
        path: A `.ckpt`, `.pt`, `.pth` or `.safetensors` file, recognised by its content.
        ema: Take the moving average (EMA) that the authors' optimiser keeps. From a checkpoint of
            `bsm train` it is always taken.
        config: Name or path of the configuration; None takes the file's own, or `bsmamba2`.

    Raises:
        BsmError: No such file or configuration.
        CheckpointError: The file is not a checkpoint, is damaged or unsafe, holds another network,
            lacks the moving average, or has numbers that are not finite.
    """
    path = existing_file(path)
    with path.open("rb") as file:
        start = file.read(9)
    is_torch = start.startswith(b"PK") or path.suffix != ".safetensors"
    read = _read_torch if is_torch and start[8:] != b"{" else _read_safetensors
    tensors, container, own = read(path, ema)
    name = config or ("its metadata" if own else "bsmamba2")
    model = own.model if own and config is None else load_config(name).model
    compared = f"; it was compared with '{name}', name its own configuration with --config"
    check_shapes({n: tuple(t.shape) for n, t in tensors.items()}, model, path, hint=compared)
    tensors = as_float32(
        path,
        {
            name: tensors[name].detach().clone(memory_format=torch.contiguous_format)
            for name in tensor_shapes(model)
        },
    )
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise CheckpointError(
            f"{path} has NaN or infinite numbers in {listed(broken)}: get an intact checkpoint."
        )
    provenance = own.provenance if own else None
    if provenance is None:
        source = f"{path.name} (EMA)" if ema else path.name
        provenance = Provenance(source=source, source_sha256=sha256_file(path), trained=True)
    metadata = Metadata(model=model, provenance=provenance, stems=own.stems if own else ())
    return ForeignCheckpoint(container=container, tensors=tensors, metadata=metadata)


def _read_torch(path: Path, ema: bool) -> tuple[Tensors, str, Metadata | None]:
    """Reads a file of PyTorch.

    Returns:
        The network's tensors, in the file's data types, the kind of file, and its metadata if this
        tool wrote it.
    """
    data = load_torch_file(path)
    own = _run_metadata(data, path)
    if own:
        kind = "checkpoint of 'bsm train', of which the moving average is taken"
        state = {key: data["ema"][key] for key in data["ema"] if key != "n_averaged"}
    else:
        state, kind = _state_dict(data, path)
    names = _network_names(state, path)
    tensors = {name: _plain_tensor(state[key], name, path) for name, key in names.items()}
    if ema and not own:
        tensors = _moving_average(data, tensors, path)
    return tensors, f"{kind}, PyTorch file", own


def _run_metadata(data: Any, path: Path) -> Metadata | None:
    """Returns the metadata of a checkpoint of `bsm train`, which holds its configuration."""
    if not isinstance(data, dict) or not data.keys() >= _RUN or not isinstance(data["ema"], dict):
        return None
    try:
        model = model_config({name: data["config"][name] for name in ("audio", "network")})
        stems = tuple(str(name) for name in data["config"]["data"]["stems"])
    except (LookupError, TypeError, ValueError, ArithmeticError, ConfigError) as error:
        raise CheckpointError(
            f"{path} has a configuration that this version of bsmamba2 does not read: copy it "
            "again, or upgrade bsmamba2."
        ) from error
    source = f"moving average of training checkpoint {path.name}, step {shown(data['step'])}"
    provenance = Provenance(source=source, source_sha256=sha256_file(path), trained=True)
    return Metadata(model=model, provenance=provenance, stems=stems)


def _read_safetensors(path: Path, ema: bool) -> tuple[Tensors, str, Metadata | None]:
    """Does the same for a safetensors file."""
    if ema:
        raise CheckpointError(f"{path} holds one set of weights: leave --ema out.")
    shapes, pairs = read_safetensors_header(path)
    own = parse_metadata(pairs, path) if CONFIG_KEY in pairs else None
    names = _network_names(shapes, path)
    return read_tensors(path, names), "safetensors file", own


def _state_dict(data: Any, path: Path) -> tuple[dict[str, Any], str]:
    """Returns the state dict, bare or nested, and the kind of file that holds it."""
    if isinstance(data, Placeholder):
        raise CheckpointError(
            f"{path} holds an object of class {data.name}, not named tensors: "
            "save its state_dict instead."
        )
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds no named tensors: save a state_dict.")
    for key, kind in _NESTED.items():
        if isinstance(data.get(key), dict):
            return data[key], kind
    return data, "bare state dict"


def _network_names(keys: Iterable[Any], path: Path) -> dict[str, str]:
    """Maps names of the network's tensors to keys in the file, in the file's order."""
    names: dict[str, str] = {}
    for key in keys:
        if not isinstance(key, str):
            raise CheckpointError(f"{path} holds no named tensors: save a state_dict.")
        name = key
        while prefix := next((p for p in _PREFIXES if name.startswith(p)), ""):
            name = name.removeprefix(prefix)
        if name.startswith(_SPECTRA):
            continue
        if name in names:
            raise CheckpointError(f"{path} holds {shown(name)} twice: save a single state_dict.")
        names[name] = key
    return names


def _plain_tensor(value: Any, name: str, path: Path) -> torch.Tensor:
    if (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_nested
        and not value.is_quantized
        # A tensor larger than its storage is a view that repeats numbers, which no weight does.
        and value.nbytes <= value.untyped_storage().nbytes()
    ):
        return value
    raise CheckpointError(
        f"{path} holds {shown(name)}, which is not a plain tensor: is it a BSMamba2 checkpoint?"
    )


def _moving_average(data: dict[str, Any], tensors: Tensors, path: Path) -> Tensors:
    """Returns the moving average under the names of the state dict, whose order it shares.

    The authors' optimiser keeps a tuple of unnamed tensors. A wrong order would go unnoticed where
    shapes repeat, so the averages are compared with the weights they belong to.
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
            f"{path} has a moving average whose {len(ema)} tensors do not match its "
            f"{len(tensors)} weights: leave --ema out."
        )
    averaged = dict(zip(tensors, ema, strict=True))
    if strangers := _unlike(tensors, averaged):
        log.warning(
            "%d matrices of the moving average differ much from the weights at their place (%s): "
            "its order may differ; compare the separation with and without --ema.",
            len(strangers),
            ", ".join(strangers[:3]),
        )
    return averaged


def _unlike(tensors: Tensors, ema: Tensors) -> list[str]:
    """Lists the matrices whose average points in another direction (cosine below 0.5)."""
    pairs = (
        (name, a.double().flatten(), ema[name].double().flatten())
        for name, a in tensors.items()
        if a.ndim > 1
    )
    return [name for name, a, b in pairs if torch.cosine_similarity(a, b, dim=0) < 0.5]
