"""The metadata of all our files: configuration, provenance, precision, measured parity.

The same string pairs are stored as the metadata of a safetensors file, as the `metadata_props` of
an ONNX file and in the JSON sidecar of a plan.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bsmamba2 import __version__
from bsmamba2.config.model import ModelConfig, model_config
from bsmamba2.config.reading import read_section, read_yaml
from bsmamba2.errors import CheckpointError, ConfigError
from bsmamba2.formats.model_files import CONFIG_KEY, import_command

FORMAT = 1
_PREFIX = "bsm."


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the weights come from."""

    source: str
    """Name of the file they were read from, or how they were made."""
    source_sha256: str | None = None
    """SHA-256 of that file."""
    licence: str = "undeclared"
    """Licence of the weights."""
    trained: bool
    """False for random weights, which separate nothing."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What users should know about trained weights; a YAML file that `load_card` reads."""

    training_data: str
    """What the network was trained on, and how these data were made or obtained."""
    recipe: str
    """The command that repeats the training."""
    scores: tuple[str, ...]
    """Measured scores, each with the data it was measured on."""
    limits: str
    """What the network cannot do."""
    licence: str
    """Licence of the weights."""


def load_card(path: str | Path) -> ModelCard:
    """Reads a model card; raises ConfigError for invalid YAML and unknown or missing keys."""
    return read_section(ModelCard, read_yaml(str(path)))


@dataclass(frozen=True, kw_only=True)
class MaskParity:
    """How far an engine's mask is from the PyTorch network's, on one spectrum."""

    frames: int
    """Frames of the spectrum."""
    p999: float
    """99.9th percentile of |difference|."""
    relative_rms: float
    """RMS of the difference over the RMS of PyTorch's mask."""

    def __str__(self) -> str:
        return f"p99.9 |difference| {self.p999:.1e}, relative RMS {self.relative_rms:.1e}"


@dataclass(frozen=True, kw_only=True)
class PrecisionCheck:
    """What a lower precision costs in one engine, compared with PyTorch in float32."""

    engine: str
    """The engine that ran the lower precision."""
    music: str
    """Description of the music on which both were compared."""
    relative_rms: float
    """RMS of the masks' difference over the RMS of float32's mask."""
    sdr_db: float
    """SDR of the estimate, with float32's estimate as the reference."""
    usdr_loss_db: float | None
    """uSDR of float32's estimate minus uSDR of this one; None if the true target is not known."""
    hostile: tuple[str, ...]
    """Hostile inputs, extreme signals on which every number stayed finite."""
    largest: float | None
    """Largest intermediate float16 value on these inputs; None if it was not recorded."""

    def __str__(self) -> str:
        loss = "" if self.usdr_loss_db is None else f", uSDR loss {self.usdr_loss_db:.4f} dB"
        largest = (
            "" if self.largest is None else f" (largest intermediate value {self.largest:.3g})"
        )
        return (
            f"{self.engine}, {self.music}: relative RMS {self.relative_rms:.1e}, SDR to float32 "
            f"{self.sdr_db:.1f} dB{loss}; finite on {', '.join(self.hostile)}{largest}"
        )


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """Metadata of a checkpoint or an engine."""

    model: ModelConfig
    provenance: Provenance
    precision: str = "float32"
    """Type of the weights and matrix products."""
    parity: tuple[MaskParity, ...] = ()
    """Results of the export's own check; empty for a checkpoint."""
    checks: tuple[PrecisionCheck, ...] = ()
    """What a lower precision costs; empty for float32."""
    card: ModelCard | None = None
    """Model card of trained weights."""
    stems: tuple[str, ...] = ()
    """Stems of the mixtures that the network was trained on; empty if they are not known."""

    def to_pairs(self) -> dict[str, str]:
        """Returns string pairs, each value as JSON."""
        values: dict[str, Any] = {
            "format": FORMAT,
            "version": __version__,
            "config": self.model.to_dict(),
            "provenance": asdict(self.provenance),
            "precision": self.precision,
            "parity": [asdict(figure) for figure in self.parity],
        }
        if self.checks:
            values["checks"] = [asdict(check) for check in self.checks]
        if self.card:
            values["card"] = asdict(self.card)
        if self.stems:
            values["stems"] = self.stems
        return {_PREFIX + key: json.dumps(value) for key, value in values.items()}


def parse_metadata(pairs: Mapping[str, str], path: object) -> Metadata:
    """Rebuilds what `Metadata.to_pairs` returned.

    Args:
        pairs: String pairs from a file.
        path: The file, for messages.

    Raises:
        CheckpointError: The file was not written by this tool, is damaged, or has a newer format.
    """
    if CONFIG_KEY not in pairs:
        instead = "use a file that 'bsm export' wrote"
        if str(path).endswith(".safetensors"):
            instead = f"run {import_command(str(path))} first"
        raise CheckpointError(f"{path} carries no BSMamba2 configuration: {instead}.")
    try:
        values = {key: json.loads(pairs[_PREFIX + key]) for key in _KEYS}
        for key in _OPTIONAL_KEYS:
            values[key] = json.loads(pairs.get(_PREFIX + key, "null"))
        if values["format"] > FORMAT:
            raise CheckpointError(
                f"{path} has format {values['format']}, but this version reads up to {FORMAT}: "
                "upgrade bsmamba2."
            )
        return Metadata(
            model=model_config(values["config"]),
            provenance=read_section(Provenance, values["provenance"], "provenance."),
            precision=str(values["precision"]),
            parity=tuple(read_section(MaskParity, one, "parity.") for one in values["parity"]),
            checks=tuple(
                read_section(PrecisionCheck, one, "checks.") for one in values["checks"] or ()
            ),
            card=read_section(ModelCard, values["card"], "card.") if values["card"] else None,
            stems=_stems(values["stems"] or []),
        )
    except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise CheckpointError(
            f"{path} has damaged BSMamba2 metadata: copy it again, or make it again."
        ) from error
    except ConfigError as error:
        raise CheckpointError(f"{path} has damaged BSMamba2 metadata: {error}") from error


def _stems(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError("stems")
    return tuple(value)


_KEYS = ("format", "config", "provenance", "precision", "parity")
_OPTIONAL_KEYS = ("checks", "card", "stems")
