"""Shared fixtures: files that many tests read and no test changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # some tests import onnxruntime first

if TYPE_CHECKING:
    from bsmamba2.plugins.toolchain import Toolchain


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
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny configuration, in which no tensor has its initial value."""
    from networks import random_network

    from bsmamba2.checkpoints.weights import save_weights
    from bsmamba2.formats.metadata import Metadata, Provenance

    network = random_network()
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    provenance = Provenance(source="a test", source_sha256="0" * 64, trained=True)
    save_weights(path, network.state_dict(), Metadata(model=network.model, provenance=provenance))
    return path


@pytest.fixture(scope="session")
def tiny_export(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_checkpoint`, exported to ONNX."""
    from bsmamba2.export.to_onnx import export_onnx

    path = tmp_path_factory.mktemp("export") / "tiny.onnx"
    export_onnx(tiny_checkpoint, path)
    return path


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny configuration with random weights, exported to ONNX."""
    from bsmamba2.export.to_onnx import export_onnx

    path = tmp_path_factory.mktemp("engine") / "tiny.onnx"
    export_onnx("tiny", path)
    return path


@pytest.fixture(scope="session")
def short_onnx(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_onnx` with chunks of 1 s instead of 8 s; its graph takes any length."""
    from small_engines import with_chunks

    return with_chunks(tiny_onnx, 1, tmp_path_factory.mktemp("short") / "tiny.onnx")


@pytest.fixture(scope="session")
def emulated_scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libbsm_scan with all kernels, for the GPU that `cuda_on_host` emulates."""
    from emulation import build_scan

    return build_scan(tmp_path_factory.mktemp("emulation") / "libbsm_scan.so")


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
def plugin_library(emulated_scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TensorRT plugin with the emulated scan in place of the CUDA kernels."""
    from native import compile_plugin

    folder = tmp_path_factory.mktemp("plugin")
    return compile_plugin(folder / "libbsm_trt_plugin.so", emulated_scan)
