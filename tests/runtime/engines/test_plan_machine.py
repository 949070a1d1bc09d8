"""Real plans of TensorRT-RTX on this machine, without the fake GPU."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from plan_building import keep_in_cache

HAS_CUPY = importlib.util.find_spec("cupy") is not None
pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None, reason="needs tensorrt-rtx"
    ),
    pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU"),
]

DESERIALISE = """
import sys
from pathlib import Path
import tensorrt_rtx as trt
from bsmamba2.errors import EngineError
from bsmamba2.formats.trt_plan import read_sidecar
from bsmamba2.plugins.tensorrt_library import load_plugin
from bsmamba2.runtime.engines.tensorrt.runtime import PlanRuntime

path, plugin = map(Path, sys.argv[1:3])
if "--damaged" in sys.argv:
    path.write_bytes(path.read_bytes()[:1000] + bytes(1000))
record, _ = read_sidecar(path)
load_plugin(trt, plugin)
try:
    PlanRuntime(trt, path.read_bytes(), path, record, capability="9.0")
except EngineError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def folder(tiny_plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model.plan` and a song."""
    folder = tmp_path_factory.mktemp("plans")
    for end in ("", ".json"):
        shutil.copy(f"{tiny_plan}{end}", folder)
    soundfile.write(folder / "song.wav", np.zeros((1000, 2)), 44100)
    return folder


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, cwd=folder
    )
    assert "Traceback" not in done.stderr
    return done


def test_a_plan_without_a_driver_is_one_sentence(folder: Path, plugin_library: Path):
    done = run("-c", DESERIALISE, "model.plan", plugin_library, folder=folder)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("TensorRT-RTX 1.7.1")
    assert line.endswith("there is no NVIDIA driver here, or it is too old: install a newer one.")


def test_a_plan_that_is_none_is_one_sentence_with_the_command(
    folder: Path, plugin_library: Path, tmp_path: Path
):
    for name in ("model.plan", "model.plan.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    done = run("-c", DESERIALISE, "model.plan", plugin_library, "--damaged", folder=tmp_path)
    (line,) = done.stdout.splitlines()
    assert "cannot load model.plan" in line
    assert "bsm export tiny.onnx --trt" in line or "no NVIDIA driver" in line


def infer(folder: Path, *arguments: str) -> str:
    """What `bsm infer` says when it fails."""
    code = "import sys; from bsmamba2.cli import main; main(sys.argv[1:])"
    done = run("-c", code, "infer", "song.wav", *arguments, folder=folder)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line


def test_infer_says_what_a_plan_lacks_here(folder: Path):
    line = infer(folder, "--engine", "model.plan")
    assert "bsm plugin build" in line or "unknown sources" in line


def test_infer_without_a_gpu_is_one_sentence(
    folder: Path, plugin_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    keep_in_cache(plugin_library)
    line = infer(folder, "--engine", "model.plan")
    assert ("No NVIDIA driver" if HAS_CUPY else "needs the 'trt' extra") in line
