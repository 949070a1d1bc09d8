"""Compiles the plugin and the program that drives it, with a C++ compiler and headers only."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import bsmamba2.plugins
from bsmamba2.plugins.tensorrt_library import find_include_dir

HERE = Path(__file__).parent / "plugins/trt"
PLUGINS = Path(bsmamba2.plugins.__file__).parent
_FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror")


def compile_plugin(output: Path, scan_library: Path, *more: Path) -> Path:
    """Compiles the plugin library, with another library's scan in place of the CUDA kernels.

    Args:
        output: The file to write.
        scan_library: `libbsm_scan.so`.
        more: C++ files to compile with it.
    """
    sources = sorted((PLUGINS / "tensorrt").glob("*.cpp"))
    assert sources
    hidden = ("-fvisibility=hidden", "-Wl,--no-undefined")
    _compile(output, *hidden, *sources, *more, scan_library, f"-Wl,-rpath,{scan_library.parent}")
    return output


def compile_host(output: Path, *flags: str) -> Path:
    """Compiles the stand-in for TensorRT, of the headers' version unless -DHOST_MAJOR sets one."""
    _compile(output, *flags, HERE / "plugin_host.cpp")
    return output


def _compile(output: Path, *arguments: str | Path) -> None:
    includes = (
        *("-isystem", find_include_dir()),
        *("-isystem", HERE / "cuda_types"),
        *("-I", PLUGINS / "include"),
    )
    command = [os.environ.get("CXX", "g++"), *_FLAGS, *includes, *arguments, "-o", output]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
