"""Shared fixtures: artefacts that many tests read and none changes."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA GPU")


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny configuration with random weights, exported."""
    from bsmamba2.export.export_model import export_onnx

    path = tmp_path_factory.mktemp("engine") / "tiny.onnx"
    export_onnx("tiny", path)
    return path
