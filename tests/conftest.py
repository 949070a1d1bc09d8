"""Shared fixtures: artefacts that many tests read and none changes."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny configuration with random weights, exported."""
    from bsmamba2.export.export_model import export_onnx

    path = tmp_path_factory.mktemp("engine") / "tiny.onnx"
    export_onnx("tiny", path)
    return path
