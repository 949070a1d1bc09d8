"""A quick engine for the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def second_onnx(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in chunks of 1 s, which its graph takes as well as those of 8 s."""
    import onnx

    model = onnx.load(tiny_onnx)
    for item in model.metadata_props:
        if item.key == "bsm.config":
            config = json.loads(item.value)
            config["audio"]["chunk_s"] = 1
            item.value = json.dumps(config)
    path = tmp_path_factory.mktemp("second") / "second.onnx"
    onnx.save(model, path)
    return path
