"""Plans for the fake GPU, with real sidecars, and the fake modules for CuPy and TensorRT."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_gpu import cupy_module, tensorrt_module
from fake_gpu.machine import Machine

from bsmamba2.formats.metadata import parse_metadata
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.formats.operator import PLUGIN_VERSION
from bsmamba2.formats.trt_plan import BUILDERS, PlanRecord, PluginRecord, sidecar_path, sidecar_text
from bsmamba2.plugins import build, tensorrt_library
from bsmamba2.plugins.build import Libraries
from bsmamba2.plugins.compilation import PLUGIN, SCAN
from bsmamba2.system.files import sha256_file

VERSION = "1.7.1.116"
COMMAND = "bsm export tiny.onnx --trt -o model.plan"
RECORD = PlanRecord(
    plan_sha256="",
    onnx="tiny.onnx",
    onnx_sha256="1" * 64,
    builder="tensorrt",
    builder_version="10.14.1",
    architectures=("9.0",),
    batch=(1, 2, 4),
    frames=(101, 101, 101),
    plugin_layers=4,
    plugin=PluginRecord(version="1", sources_sha256="2" * 64, library_sha256="3" * 64),
    command=COMMAND,
)
"""The sidecar of a TensorRT plan for chunks of one second; `plan_sha256` must be filled in."""


def write_plan(
    onnx: Path,
    path: Path,
    *,
    batch: tuple[int, int, int] = (1, 4, 4),
    frames: tuple[int, int, int] | None = None,
    change: Callable[[PlanRecord], PlanRecord] = lambda record: record,
    kind: bytes = tensorrt_module.PLAIN,
) -> Path:
    """Writes a plan and its sidecar.

    Args:
        onnx: The model that the plan computes.
        path: The plan to write.
        batch: Chunks at a time.
        frames: Frames of a chunk; None takes the model's.
        change: Changes the correct record before it is written.
        kind: Kind of the plan's bytes.
    """
    metadata = parse_metadata(read_onnx_file(onnx).metadata, onnx)
    frames = frames or (metadata.model.audio.chunk_frames,) * 3
    path.write_bytes(tensorrt_module.make_plan(onnx.read_bytes(), batch, frames, kind))
    plugin = replace(RECORD.plugin, version=PLUGIN_VERSION, sources_sha256=build.sources_sha256())
    record = replace(
        RECORD,
        plan_sha256=sha256_file(path),
        onnx=onnx.name,
        onnx_sha256=sha256_file(onnx),
        builder="tensorrt-rtx",
        builder_version=VERSION,
        architectures=(),
        batch=batch,
        frames=frames,
        plugin=plugin,
    )
    sidecar_path(path).write_text(sidecar_text(change(record), metadata))
    return path


def install(
    monkeypatch: pytest.MonkeyPatch,
    machine: Machine,
    *,
    builder: str = "tensorrt-rtx",
    version: str = VERSION,
    **quirks: Any,
) -> list[tuple[Any, Path]]:
    """Installs the fake modules in this process; returns a list that fills with loaded plugins.

    Args:
        monkeypatch: Removes them again.
        machine: The GPU.
        builder: The builder that is installed; the other one is not.
        version: The builder's version.
        quirks: Attributes of its contexts; see `make_module`.
    """
    for name, module in cupy_module.make_modules(machine).items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in BUILDERS.values():
        monkeypatch.setitem(sys.modules, name, None)
    name = BUILDERS[builder]
    module = tensorrt_module.make_module(machine, name, version, **quirks)
    monkeypatch.setitem(sys.modules, name, module)
    loaded: list[tuple[Any, Path]] = []
    monkeypatch.setattr(tensorrt_library, "load_plugin", lambda *what: loaded.append(what))
    monkeypatch.setattr(build, "find_libraries", lambda plugin=False: a_build(Path("build")))
    return loaded


def a_build(folder: Path, *libraries: str) -> Libraries:
    """Returns a fake build of both libraries, or of some, in the cache."""
    digests = dict.fromkeys(libraries or (SCAN, PLUGIN), "")
    return Libraries(folder=folder, sources="", sizes=(), architectures=("sm_90",), sha256=digests)


def with_plugin(record: PlanRecord, **changes: Any) -> PlanRecord:
    """The record with another plugin."""
    return replace(record, plugin=replace(record.plugin, **changes))
