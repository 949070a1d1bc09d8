"""A quick engine for the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_engines import with_chunks


@pytest.fixture(scope="session")
def second_onnx(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in chunks of 1 s, which its graph takes as well as those of 8 s."""
    return with_chunks(tiny_onnx, 1, tmp_path_factory.mktemp("second") / "second.onnx")
