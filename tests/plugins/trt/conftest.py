"""The plugin library with the emulated scan in place of the CUDA kernels."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def plugin_library(emulated_scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from native import compile_plugin

    folder = tmp_path_factory.mktemp("plugin")
    return compile_plugin(folder / "libbsm_trt_plugin.so", emulated_scan)
