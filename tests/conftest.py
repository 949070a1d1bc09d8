"""Shared fixtures: files that many tests read and no test changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # some tests import onnxruntime first

if TYPE_CHECKING:
    from bsmamba2.plugins.toolchain import Toolchain


Shared = Callable[[str, Callable[[Path], object]], Path]
"""Takes a folder with a file name and a function that writes the file; returns its path."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several processes take files with slow tests first, so that none is left for the end."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA GPU")


@pytest.fixture(scope="session", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs all tests in an empty folder, so that what they write stays out of the checkout."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """Makes a file that all test processes read, once: `share("folder/name", make)`."""
    from bsmamba2.system.atomic import locked

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def share(name: str, make: Callable[[Path], object]) -> Path:
        path = root / "shared" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        done = path.parent.with_suffix(".done")
        with locked(path.parent.with_suffix(".lock"), lambda: None):
            if not done.exists():
                make(path)
                done.touch()
        return path

    return share


@pytest.fixture(scope="session")
def tiny_checkpoint(shared: Shared) -> Path:
    """A checkpoint of the tiny configuration, in which no tensor has its initial value."""
    pytest.importorskip("torch")
    from networks import random_network

    from bsmamba2.checkpoints.weights import save_weights
    from bsmamba2.formats.metadata import Metadata, Provenance

    def make(path: Path) -> None:
        network = random_network()
        provenance = Provenance(source="a test", source_sha256="0" * 64, trained=True)
        stems = ("vocals", "instrumental")
        metadata = Metadata(model=network.model, provenance=provenance, stems=stems)
        save_weights(path, network.state_dict(), metadata)

    return shared("checkpoint/tiny.safetensors", make)


@pytest.fixture(scope="session")
def written_run(shared: Shared) -> Path:
    """The folder of a training run, with random weights."""
    from run_folders import write_run

    return shared("run/last.ckpt", lambda path: write_run(path.parent)).parent


@pytest.fixture(scope="session")
def tiny_export(tiny_checkpoint: Path, shared: Shared) -> Path:
    """`tiny_checkpoint`, exported to ONNX."""
    from bsmamba2.export.to_onnx import export_onnx

    return shared("export/tiny.onnx", lambda path: export_onnx(tiny_checkpoint, path))


@pytest.fixture(scope="session")
def tiny_onnx(shared: Shared) -> Path:
    """The tiny configuration with random weights, exported to ONNX."""
    pytest.importorskip("torch")
    from bsmamba2.export.to_onnx import export_onnx

    return shared("engine/tiny.onnx", lambda path: export_onnx("tiny", path))


@pytest.fixture(scope="session")
def tiny_half(shared: Shared) -> Path:
    """The tiny configuration's graph in float16."""
    import onnx
    import torch
    from networks import random_network

    from bsmamba2.export.onnx.graph import export_graph
    from bsmamba2.formats.metadata import Metadata, Provenance
    from bsmamba2.models.folded import fold

    def make(path: Path) -> None:
        network = random_network(dtype=torch.float32)
        provenance = Provenance(source="a test", trained=False)
        metadata = Metadata(model=network.model, provenance=provenance)
        onnx.save(export_graph(fold(network, torch.float16), metadata), path)

    return shared("half/half.onnx", make)


@pytest.fixture(scope="session")
def short_onnx(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_onnx` with chunks of 1 s instead of 8 s; its graph takes any length."""
    from small_engines import with_chunks

    return with_chunks(tiny_onnx, 1, tmp_path_factory.mktemp("short") / "tiny.onnx")


@pytest.fixture(scope="session")
def emulated_scan(shared: Shared) -> Path:
    """libbsm_scan with all kernels, for the GPU that `cuda_on_host` emulates."""
    from emulation import build_scan

    return shared("emulation/libbsm_scan.so", build_scan)


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    """The CUDA compilers; skips the test where there are none."""
    from bsmamba2.errors import PluginError
    from bsmamba2.plugins.toolchain import find_toolchain

    try:
        return find_toolchain()
    except PluginError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def plugin_library(emulated_scan: Path, shared: Shared) -> Path:
    """The TensorRT plugin with the emulated scan in place of the CUDA kernels."""
    from native import compile_plugin

    return shared("plugin/libbsm_trt_plugin.so", lambda path: compile_plugin(path, emulated_scan))


@pytest.fixture(scope="session")
def tiny_plan(tiny_onnx: Path, plugin_library: Path, shared: Shared) -> Path:
    """TensorRT-RTX's plan of `tiny_onnx`, with its sidecar."""
    from plan_building import built

    return shared(
        "plan/model.plan",
        lambda path: built(path.parent, tiny_onnx, plugin_library, "-o", path.name),
    )
