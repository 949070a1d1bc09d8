"""The sidecar of a TensorRT plan: what it was built from and with, and where it runs.

A plan is opaque, and bound to a version of its builder and to certain GPUs. What decides whether it
runs here is therefore stored beside it, in `model.plan.json`, which `export.to_plan` writes and the
runtime checks first. Only embedded libraries, whose code would run when the plan is loaded, are
looked for in the plan itself (`read_plan`).
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
"""Name of a builder -> name of the product."""

_LIBRARY = re.compile(rb"\x7fELF\x02\x01\x01.{9}\x03\x00", re.DOTALL)
"""Start of a shared object: 64 bits, little-endian, version 1, of type ET_DYN."""
_WINDOWS = re.compile(rb"MZ(?=.{58}(.{4}))", re.DOTALL)
"""Start of a Windows program or library; the four bytes are the offset of its "PE" header."""
_MAX_STUB = 1 << 16  # bytes before that header; linkers write a few hundred


@dataclass(frozen=True, kw_only=True)
class PluginRecord:
    """The plugin library that a plan was built with."""

    version: str
    """Version of the operator's contract."""
    sources_sha256: str
    """SHA-256 of the CUDA sources: libraries built from equal sources are interchangeable."""
    library_sha256: str
    """SHA-256 of the library itself."""


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """How a plan was built and where it runs."""

    plan_sha256: str
    """SHA-256 of the plan."""
    onnx: str
    """Name of the ONNX file that the plan was built from."""
    onnx_sha256: str
    """SHA-256 of that file."""
    builder: str
    """A key of BUILDERS."""
    builder_version: str
    """Version of the builder's Python module."""
    architectures: tuple[str, ...]
    """Compute capabilities of the GPUs that the plan runs on, such as "9.0"; empty if the builder
    did not bind it to any."""
    batch: tuple[int, int, int]
    """Chunks in a batch: the fewest, the number optimised for, the most."""
    frames: tuple[int, int, int]
    """Frames of a chunk: the fewest, the number optimised for, the most."""
    plugin_layers: int
    """Number of layers that run the scan plugin."""
    plugin: PluginRecord
    """The plugin library of these layers."""
    command: str
    """The `bsm export` command that builds the plan again."""


def sidecar_path(plan: Path) -> Path:
    """Returns the path of the sidecar, `model.plan.json` for `model.plan`."""
    return plan.with_name(plan.name + ".json")


def sidecar_text(record: PlanRecord, metadata: Metadata) -> str:
    """Returns the sidecar's content, JSON."""
    values = {"format": FORMAT, "plan": asdict(record), "metadata": metadata.to_pairs()}
    return json.dumps(values, indent=2) + "\n"


def read_sidecar(plan: Path) -> tuple[PlanRecord, Metadata]:
    """Reads the sidecar of a plan; the plan itself is not opened.

    Raises:
        BsmError: No such plan.
        CheckpointError: The sidecar is missing, damaged or of another version.
    """
    plan = existing_file(plan)
    path = sidecar_path(plan)
    advice = f"copy it from where the plan was built, or build {plan.name} again"
    try:
        values: Any = json.loads(path.read_text("utf-8"))
        if values["format"] > FORMAT:
            raise CheckpointError(
                f"{path} has format {values['format']}, but this version reads up to {FORMAT}: "
                "upgrade bsmamba2."
            )
        if values["format"] < FORMAT:
            raise CheckpointError(
                f"{path} was written by an older bsmamba2: build {plan.name} again with "
                "'bsm export --trt'."
            )
        record = read_section(PlanRecord, values["plan"])
        if record.builder not in BUILDERS:
            raise ConfigError(f"'builder' must be {' or '.join(BUILDERS)}.")
        words = shlex.split(record.command)  # messages tell users to run it
        if words[:2] != ["bsm", "export"] or shlex.join(words) != record.command:
            raise ConfigError("'command' must be a 'bsm export' command.")
        pairs = values["metadata"]
        if not isinstance(pairs, dict) or any(type(text) is not str for text in pairs.values()):
            raise TypeError("metadata")
        return record, parse_metadata(pairs, path)
    except OSError as error:
        raise CheckpointError(
            f"{plan} has no readable sidecar {path.name} ({error.strerror}): {advice}."
        ) from error
    except (ValueError, LookupError, TypeError, RecursionError, ConfigError) as error:
        unread = "it is not the JSON of a sidecar"
        reason = str(error).rstrip(".") if isinstance(error, ConfigError) else unread
        raise CheckpointError(f"{path} is damaged ({reason}): {advice}.") from error


def sidecar_metadata(plan: Path) -> dict[str, str]:
    """Returns the metadata's string pairs, from a sidecar that `read_sidecar` has checked."""
    pairs: dict[str, str] = json.loads(sidecar_path(plan).read_text("utf-8"))["metadata"]
    return pairs


def carries_library(plan: bytes) -> bool:
    """Whether a plan contains a library of host code, which the builders' APIs can embed.

    GPU code is ELF, too, but not a shared object, and does not count.
    """
    if _LIBRARY.search(plan):
        return True
    for match in _WINDOWS.finditer(plan):
        header = match.start() + min(int.from_bytes(match[1], "little"), _MAX_STUB)
        if plan[header : header + 4] == b"PE\0\0":
            return True
    return False


def read_plan(plan: Path, record: PlanRecord) -> bytes:
    """Reads a plan's bytes and checks them before anything else uses them.

    Raises:
        EngineError: The sidecar describes other bytes, or they contain a library, whose code
            TensorRT-RTX 1.7.1 runs even if `engine_host_code_allowed` is False.
    """
    data = plan.read_bytes()
    if hashlib.sha256(data).hexdigest() != record.plan_sha256:
        raise EngineError(
            f"{plan} is not the file that its sidecar describes: copy both again, or run "
            f"'{record.command}'."
        )
    if carries_library(data):
        raise EngineError(
            f"{plan} contains a library, whose code would run with your rights: delete the plan "
            "and build it again with 'bsm export --trt', which embeds none."
        )
    return data
