"""The sidecar of a TensorRT plan: what it was built from and with, and where it runs.

A plan is opaque and bound to the version of its builder and to GPUs. So what decides whether
it runs here is in `model.plan.json` beside it, which `export.to_plan` writes and the runtime
checks first. A library, whose code would run, is looked for in the plan itself (`read_plan`).
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bsmamba2.config.reading import read_section
from bsmamba2.errors import CheckpointError, ConfigError, EngineError
from bsmamba2.formats.metadata import Metadata, parse_metadata
from bsmamba2.system.files import existing_file

FORMAT = 3
BUILDERS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Name of a builder, as in `--builder` -> its module."""
TITLES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
"""Name of a builder -> for people."""

_LIBRARY = re.compile(rb"\x7fELF\x02\x01\x01.{9}\x03\x00", re.DOTALL)
"""Start of a shared object: 64 bits, little-endian, version 1, of type ET_DYN."""
_WINDOWS = re.compile(rb"MZ(?=.{58}(.{4}))", re.DOTALL)
"""Start of a program or library of Windows; the four bytes say where its "PE" header is."""
_MAX_STUB = 1 << 16  # bytes before that header; linkers leave some hundred


@dataclass(frozen=True, kw_only=True)
class PluginRecord:
    """The plugin library that a plan was built with."""

    version: str
    """Of the operator's contract."""
    sources_sha256: str
    """Of the CUDA sources: libraries built of the same ones are interchangeable."""
    library_sha256: str
    """Of the library's own bytes."""


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """What is known of a plan."""

    plan_sha256: str
    """Of the plan's bytes."""
    onnx: str
    """Name of the file it was built from."""
    onnx_sha256: str
    """Of that file."""
    builder: str
    """A key of BUILDERS."""
    builder_version: str
    """As the module says it."""
    architectures: tuple[str, ...]
    """Compute capabilities of the GPUs it runs on, such as "9.0"; empty where the builder did not
    bind it to any."""
    batch: tuple[int, int, int]
    """Chunks at a time: fewest, as optimised for, most."""
    frames: tuple[int, int, int]
    """Frames of a chunk: fewest, as optimised for, most."""
    plugin_layers: int
    """Layers that are the scan's plugin."""
    plugin: PluginRecord
    """The library of these layers."""
    command: str
    """The `bsm export` command that builds it again."""


def sidecar_path(plan: Path) -> Path:
    """`model.plan.json` for `model.plan`."""
    return plan.with_name(plan.name + ".json")


def sidecar_text(record: PlanRecord, metadata: Metadata) -> str:
    """The sidecar's JSON."""
    values = {"format": FORMAT, "plan": asdict(record), "metadata": metadata.to_pairs()}
    return json.dumps(values, indent=2) + "\n"


def read_sidecar(plan: Path) -> tuple[PlanRecord, Metadata]:
    """What the sidecar says of a plan; the plan itself is not opened.

    Raises:
        BsmError: No such plan.
        CheckpointError: It has no sidecar, or one that is damaged or of another version.
    """
    plan = existing_file(plan)
    path = sidecar_path(plan)
    advice = f"copy it from where the plan was built, or build {plan.name} again"
    try:
        values: Any = json.loads(path.read_text("utf-8"))
        if values["format"] > FORMAT:
            raise CheckpointError(
                f"{path} has format {values['format']}, this version reads up to {FORMAT}: "
                "upgrade bsmamba2."
            )
        if values["format"] < FORMAT:
            raise CheckpointError(
                f"{path} was written by an older bsmamba2: build {plan.name} again by "
                "'bsm export --trt'."
            )
        record = read_section(PlanRecord, values["plan"])
        if record.builder not in BUILDERS:
            raise ConfigError(f"'builder' must be {' or '.join(BUILDERS)}.")
        words = shlex.split(record.command)  # which messages tell people to run
        if words[:2] != ["bsm", "export"] or shlex.join(words) != record.command:
            raise ConfigError("'command' must be one of 'bsm export'.")
        pairs = values["metadata"]
        if not isinstance(pairs, dict) or any(type(text) is not str for text in pairs.values()):
            raise TypeError("metadata")
        return record, parse_metadata(pairs, path)
    except OSError as error:
        raise CheckpointError(
            f"{plan} has no readable sidecar {path.name} ({error.strerror}): {advice}."
        ) from error
    except (ValueError, LookupError, TypeError, RecursionError, ConfigError) as error:
        reason = str(error).rstrip(".") if isinstance(error, ConfigError) else type(error).__name__
        raise CheckpointError(f"{path} is damaged ({reason}): {advice}.") from error


def sidecar_metadata(plan: Path) -> dict[str, str]:
    """The string pairs of the sidecar's metadata, for a sidecar that `read_sidecar` has read."""
    pairs: dict[str, str] = json.loads(sidecar_path(plan).read_text("utf-8"))["metadata"]
    return pairs


def carries_library(plan: bytes) -> bool:
    """Whether there is a library of host code in a plan; the builders' APIs can put one there.

    Code for GPUs, which is ELF, too, but no shared object, is none.
    """
    if _LIBRARY.search(plan):
        return True
    for match in _WINDOWS.finditer(plan):
        header = match.start() + min(int.from_bytes(match[1], "little"), _MAX_STUB)
        if plan[header : header + 4] == b"PE\0\0":
            return True
    return False


def read_plan(plan: Path, record: PlanRecord) -> bytes:
    """A plan's bytes, which are what its sidecar says, before anything else reads them.

    Raises:
        EngineError: They are others, or carry a library, whose code TensorRT-RTX 1.7.1 runs even
            where `engine_host_code_allowed` is False.
    """
    data = plan.read_bytes()
    if hashlib.sha256(data).hexdigest() != record.plan_sha256:
        raise EngineError(
            f"{plan} is not the file that its sidecar describes: copy both again, or run "
            f"'{record.command}'."
        )
    if carries_library(data):
        raise EngineError(
            f"{plan} carries a library, whose code would run with your rights: delete it, and "
            "build the plan with 'bsm export --trt', which puts none in."
        )
    return data
