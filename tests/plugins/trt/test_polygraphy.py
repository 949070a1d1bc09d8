"""Polygraphy's own commands on our files: ONNX Runtime, and TensorRT-RTX with the plugin."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from plan_building import keep_in_cache

import bsmamba2.plugins
from bsmamba2.formats.operator import OP_TYPE

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("polygraphy", "tensorrt_rtx")),
    reason="needs polygraphy and tensorrt-rtx",
)
NODES = 4
"""Scans of the tiny network."""
GUIDE = (Path(bsmamba2.plugins.__file__).parent / "SERVING.md").read_text("utf-8")


def run(
    command: list[str | Path], folder: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {"POLYGRAPHY_USE_TENSORRT_RTX": "1"} | os.environ | variables
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def polygraphy(
    folder: Path, *arguments: str | Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    return run([Path(sys.executable).with_name("polygraphy"), *arguments], folder, **variables)


def scan_plugins(plan: Path) -> int:
    """At least one for each plugin in a plan: the name of a serialised attribute."""
    return plan.read_bytes().count(b"d_state")


@pytest.fixture
def folder(tiny_onnx: Path, plugin_library: Path, tmp_path: Path) -> Path:
    """A model, a plugin library and the script of the guide, which names them."""
    (tmp_path / "model.onnx").symlink_to(tiny_onnx)
    (tmp_path / "plugin.so").symlink_to(plugin_library)
    (script,) = re.findall(r"^```python\n(from bsmamba2\.plugins\.poly.*?)^```", GUIDE, re.M | re.S)
    named = script.replace('"model.onnx"', '"model.onnx", "plugin.so"')
    assert named != script  # without a plugin it would build the CUDA one
    (tmp_path / "network.py").write_text(named)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "shape"),
    [((), "1, 2, 1, 1025, 2"), (("--input-shapes", "spectrum:[2,2,5,1025,2]"), "2, 2, 5, 1025, 2")],
)
def test_onnxruntime_runs_an_exported_file(folder: Path, options: tuple[str, ...], shape: str):
    done = polygraphy(folder, "run", "model.onnx", "--onnxrt", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{{mask [dtype=float32, shape=({shape})]}}" in done.stdout


def test_commands_of_the_guide_build_a_plan_in_which_every_scan_is_the_plugin(folder: Path):
    (block,) = re.findall(r"^```console\n(polygraphy convert.*?)^```", GUIDE, re.M | re.S)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = run(["bash", "-euo", "pipefail", "-c", block], folder, PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "max=[4, 2, 801, 1025, 2]" in done.stdout
    assert scan_plugins(folder / "model.plan") >= NODES


def test_the_script_gives_one_plugin_layer_a_scan(folder: Path):
    code = (
        "from network import load_network\n"
        "from bsmamba2.plugins.tensorrt_library import count_plugin_layers\n"
        "builder, network, parser = load_network()\n"
        "print(count_plugin_layers(network))\n"
    )
    done = run([sys.executable, "-c", code], folder, PYTHONPATH=".")
    assert done.stdout.splitlines()[-1:] == [str(NODES)], done.stdout + done.stderr


def test_polygraphys_own_plugin_option_leaves_a_plan_without_the_plugin(folder: Path):
    """Why the script exists. When this fails, Polygraphy registers plugins itself."""
    arguments = ("convert", "model.onnx", "-o", "model.plan", "--plugins", "./plugin.so")
    done = polygraphy(folder, *arguments, "--convert-to", "trt")
    assert done.returncode == 0, done.stdout + done.stderr
    assert scan_plugins(folder / "model.plan") == 0


def test_the_default_plugin_is_a_build_that_is_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """On a machine without GPU and compiler: PATH holds neither nvidia-smi nor nvcc."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    keep_in_cache(folder / "plugin.so")
    code = (
        "from bsmamba2.plugins.polygraphy_network import parsed_network\n"
        "from bsmamba2.plugins.tensorrt_library import count_plugin_layers\n"
        "print(count_plugin_layers(parsed_network('model.onnx')[1]))\n"
    )
    done = run([sys.executable, "-c", code], folder, PATH="", CUDACXX="", CUDA_HOME="")
    assert done.stdout.splitlines()[-1:] == [str(NODES)], done.stdout + done.stderr


# --- what goes wrong ---


def refusal(folder: Path, script: str, **variables: str) -> str:
    """The line of a conversion that must fail, without a traceback."""
    head = "from bsmamba2.plugins.polygraphy_network import parsed_network\n"
    body = f"def load_network():\n    return parsed_network({script})\n"
    (folder / "network.py").write_text(head + body)
    done = polygraphy(folder, "convert", "network.py", "-o", "model.plan", **variables)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert not (folder / "model.plan").exists()
    return done.stderr


def test_absent_model_is_one_sentence(folder: Path):
    assert "[!] No such file: absent.onnx." in refusal(folder, "'absent.onnx'")


def test_absent_plugin_is_one_sentence(folder: Path):
    found = refusal(folder, "'model.onnx', 'absent.so'")
    assert "[!] No such file: absent.so." in found


def test_model_of_another_kind_is_one_sentence(folder: Path):
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    other = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", [value], [other])
    onnx.save(helper.make_model(graph), folder / "other.onnx")
    found = refusal(folder, "'other.onnx', 'plugin.so'")
    assert "[!] other.onnx has no bsm::BiMamba2Scan: make it with 'bsm export'." in found


def test_nodes_that_name_no_plugin_are_one_sentence(folder: Path):
    import onnx

    model = onnx.load(folder / "model.onnx")
    node = next(node for node in model.graph.node if node.op_type == OP_TYPE)
    (namespace,) = (a for a in node.attribute if a.name == "plugin_namespace")
    namespace.s = b"other"
    onnx.save(model, folder / "renamed.onnx")
    found = refusal(folder, "'renamed.onnx', 'plugin.so'")
    assert f"[!] The network has {NODES - 1} plugin layers for {NODES} scan nodes: " in found


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="has TensorRT")
def test_tensorrt_that_is_not_installed_is_one_sentence(folder: Path):
    found = refusal(folder, "'model.onnx', 'plugin.so'", POLYGRAPHY_USE_TENSORRT_RTX="0")
    assert "set POLYGRAPHY_USE_TENSORRT_RTX to 1 for the other one." in found
