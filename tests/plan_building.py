"""Builds plans in processes of their own, because a registered plugin stays registered."""

from __future__ import annotations

import json
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from onnx import ModelProto, NodeProto
from processes import MAIN, WITHOUT_TORCH, python

from bsmamba2.formats.operator import SCAN_NODE
from bsmamba2.plugins.build import sources_sha256
from bsmamba2.plugins.compilation import PLUGIN, SCAN, SIZES
from bsmamba2.system.user_cache import cache_folder

EMBED_PLUGIN = """
import tensorrt_rtx as trt
def build(self, network, config, real=trt.Builder.build_serialized_network):
    config.plugins_to_serialize = [sys.argv[sys.argv.index("--plugin") + 1]]
    return real(self, network, config)
trt.Builder.build_serialized_network = build
"""
"""Puts the plugin's library into the plan, as TensorRT's interface for builders can."""


def bsm(
    folder: Path, *arguments: str | Path, before: str = "", torch: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs `bsm` in a folder, by default without torch and onnx, after some Python code."""
    code = ("" if torch else WITHOUT_TORCH) + before + MAIN
    return python(code, *arguments, folder=folder)


def build(
    folder: Path, source: Path | str, plugin: Path, *arguments: str, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs `bsm export SOURCE --trt` with TensorRT-RTX and a plugin that is built already."""
    pytest.importorskip("tensorrt_rtx")
    chosen = ("--builder", "tensorrt-rtx", "--plugin", str(plugin))
    return bsm(folder, "export", source, "--trt", *chosen, *arguments, before=before)


def built(folder: Path, source: Path | str, plugin: Path, *arguments: str) -> Path:
    """The path of a plan whose build must succeed."""
    done = build(folder, source, plugin, *arguments)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The error sentence of a command that failed, without its reports of progress."""
    assert done.returncode == 1, done.stderr
    *before, last = done.stderr.splitlines()
    assert last.startswith("Error: "), done.stderr
    assert "Traceback" not in done.stderr
    told = ("Parsed ", "Building with ", "WARNING: ", "bsm::BiMamba2Scan: ")
    assert all(line.startswith(told) for line in before)
    return last.removeprefix("Error: ")


def scans(model: ModelProto) -> list[NodeProto]:
    """Nodes of the custom operator."""
    return [node for node in model.graph.node if (node.domain, node.op_type) == SCAN_NODE]


def keep_in_cache(plugin: Path) -> None:
    """Puts a plugin into the cache as if `bsm plugin build` had built it here."""
    folder = cache_folder("plugins") / "build"
    folder.mkdir(mode=0o700)
    files = {SCAN: b"a scan", PLUGIN: plugin.read_bytes()}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    record = {
        "sources": sources_sha256(),
        "sizes": SIZES,
        "architectures": ["sm_90"],
        "sha256": {name: sha256(data).hexdigest() for name, data in files.items()},
    }
    (folder / "build.json").write_text(json.dumps(record))
