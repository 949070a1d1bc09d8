"""The C++ examples compile, and run as far as a machine without a GPU lets them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bsmamba2.plugins
from bsmamba2.formats.operator import OP_TYPE
from bsmamba2.plugins.tensorrt_library import find_include_dir
from bsmamba2.plugins.toolchain import find_toolchain

EXAMPLES = Path(bsmamba2.plugins.__file__).parent / "examples"
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="needs tensorrt-rtx"
)


def compile_example(*arguments: str | Path) -> None:
    flags = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror")
    command = [os.environ.get("CXX", "g++"), *flags, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def rtx_library() -> Path:
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    assert spec is not None
    (folder,) = spec.submodule_search_locations or ()
    return Path(folder) / "libtensorrt_rtx.so.1"


# --- run_plan ---


@pytest.fixture(scope="module")
def run_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Linked with TensorRT-RTX, whose functions have the names of TensorRT's."""
    pytest.importorskip("tensorrt_rtx")
    toolchain = find_toolchain()  # nvcc knows where CUDA's headers and runtime are
    program = tmp_path_factory.mktemp("example") / "run_plan"
    command = [
        *(toolchain.nvcc, "-std=c++17", "-Xcompiler=-Wall,-Wextra,-Werror"),
        *("-isystem", find_include_dir(), EXAMPLES / "run_plan.cpp", "-o", program),
        *(f"-Xlinker={rtx_library()}", f"-Xlinker=-rpath={rtx_library().parent}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=toolchain.environment)
    assert done.returncode == 0, done.stderr
    return program


def failure(program: Path, *arguments: str | Path) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


def test_run_plan_reads_its_files_and_asks_for_a_gpu(run_plan: Path, tmp_path: Path):
    """What comes after is the same calls as Python's engine makes, on a GPU."""
    spectrum, plan = tmp_path / "spectrum.f32", tmp_path / "model.plan"
    spectrum.write_bytes(bytes(4 * 2 * 1025 * 2))
    plan.write_bytes(b"a plan")
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}  # GPUs are none of this test's business
    command = [run_plan, "plugin.so", plan, spectrum, tmp_path / "mask.f32"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "CUDA" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "mask.f32").exists()


def test_run_plan_names_what_it_cannot_read(run_plan: Path, tmp_path: Path):
    (tmp_path / "empty").touch()
    for name in ("absent", "empty"):
        found = failure(run_plan, "plugin.so", "model.plan", tmp_path / name, "mask.f32")
        assert found == f"run_plan: {tmp_path / name} cannot be read, or is empty.\n"


def test_run_plan_says_how_it_is_used(run_plan: Path):
    done = subprocess.run([run_plan], capture_output=True, text=True)
    assert done.returncode == 2
    assert "PLUGIN PLAN SPECTRUM MASK" in done.stderr


# --- register_plugin ---

OPEN = """
import ctypes, sys
for path in sys.argv[2:]:
    ctypes.CDLL(path, ctypes.RTLD_LOCAL)
if sys.argv[1]:
    import tensorrt_rtx
ctypes.CDLL("./libbsm_trt_register.so", ctypes.RTLD_LOCAL)
if sys.argv[1]:
    print(*(c.name for c in tensorrt_rtx.get_plugin_registry().all_creators))
"""
TENSORRT = """
// TensorRT's registry by its own headers, which does nothing but say what it is asked.
#include <NvInferRuntime.h>
#include <cstdio>
using namespace nvinfer1;
struct Registry final : IPluginRegistry {
    bool registerCreator(IPluginCreator&, AsciiChar const*) noexcept override { return false; }
    IPluginCreator* const* getPluginCreatorList(int32_t*) const noexcept override { return {}; }
    IPluginCreator* getPluginCreator(
        AsciiChar const*, AsciiChar const*, AsciiChar const*) noexcept override { return {}; }
    void setErrorRecorder(IErrorRecorder*) noexcept override {}
    IErrorRecorder* getErrorRecorder() const noexcept override { return {}; }
    bool deregisterCreator(IPluginCreator const&) noexcept override { return false; }
    bool isParentSearchEnabled() const override { return false; }
    void setParentSearchEnabled(bool) override {}
    PluginLibraryHandle loadLibrary(AsciiChar const* path) noexcept override {
        std::fprintf(stderr, "loadLibrary %s\\n", path);
        return RESULT ? this : nullptr;
    }
    void deregisterLibrary(PluginLibraryHandle) noexcept override {}
    bool registerCreator(IPluginCreatorInterface&, AsciiChar const*) noexcept override {
        return false;
    }
    IPluginCreatorInterface* const* getAllCreators(int32_t*) const noexcept override { return {}; }
    IPluginCreatorInterface* getCreator(
        AsciiChar const*, AsciiChar const*, AsciiChar const*) noexcept override { return {}; }
    bool deregisterCreator(IPluginCreatorInterface const&) noexcept override { return false; }
    IPluginResource* acquirePluginResource(AsciiChar const*, IPluginResource*) noexcept override {
        return {};
    }
    int32_t releasePluginResource(AsciiChar const*) noexcept override { return 0; }
    IPluginCreatorInterface* const* getAllCreatorsRecursive(int32_t*) noexcept override {
        return {};
    }
};
extern "C" IPluginRegistry* getPluginRegistry() noexcept { static Registry r; return &r; }
extern "C" int32_t getInferLibMajorVersion() noexcept { return MAJOR; }
extern "C" int32_t getInferLibMinorVersion() noexcept { return 0; }
"""


@pytest.fixture
def folder(plugin_library: Path, tmp_path: Path) -> Path:
    """Where a server would have both libraries side by side."""
    (tmp_path / "libbsm_trt_plugin.so").symlink_to(plugin_library)
    output = ("-o", tmp_path / "libbsm_trt_register.so")
    compile_example("-shared", "-fPIC", EXAMPLES / "register_plugin.cpp", *output, "-ldl")
    return tmp_path


def open_there(folder: Path, *arguments: str | Path, **variables: str) -> tuple[str, str]:
    """What a process prints and complains of that opens the library, and nothing else of it."""
    command = [sys.executable, "-c", OPEN, *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if k != "BSM_TRT_PLUGIN"} | variables
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def stand_in(folder: Path, major: int = 10, result: int = 1) -> Path:
    source, library = folder / "tensorrt.cpp", folder / f"libnvinfer.so.{major}"
    source.write_text(TENSORRT)
    flags = (f"-DMAJOR={major}", f"-DRESULT={result}", "-Wno-deprecated-declarations", "-w")
    includes = ("-isystem", find_include_dir(), "-isystem", Path(__file__).parent / "cuda_types")
    compile_example("-shared", "-fPIC", *flags, *includes, source, "-o", library)
    return library


@needs_rtx
def test_opening_it_registers_the_plugin(folder: Path):
    printed, complaints = open_there(folder, "rtx")
    assert OP_TYPE in printed.split()
    assert complaints == ""


@needs_rtx
def test_the_library_to_register_can_be_named(folder: Path, plugin_library: Path):
    (folder / "libbsm_trt_plugin.so").unlink()
    printed, _ = open_there(folder, "rtx", BSM_TRT_PLUGIN=str(plugin_library))
    assert OP_TYPE in printed.split()


@needs_rtx
def test_absent_plugin_is_named(folder: Path):
    (folder / "libbsm_trt_plugin.so").unlink()
    printed, complaints = open_there(folder, "rtx")
    assert OP_TYPE not in printed.split()
    assert "libbsm_trt_plugin.so was not registered: TensorRT's log says why." in complaints


def test_tensorrt_10_is_asked_to_load_the_library_beside(folder: Path):
    _, complaints = open_there(folder, "", stand_in(folder))
    assert complaints == "loadLibrary ./libbsm_trt_plugin.so\n"


def test_refusal_of_tensorrt_is_said(folder: Path):
    _, complaints = open_there(folder, "", stand_in(folder, result=0))
    assert complaints.endswith(
        "libbsm_trt_register: ./libbsm_trt_plugin.so was not registered: TensorRT's log says why.\n"
    )


def test_tensorrt_of_an_unknown_version_is_left_alone(folder: Path):
    _, complaints = open_there(folder, "", stand_in(folder, major=12))
    assert "is a TensorRT that this library does not know" in complaints
    assert "loadLibrary ." not in complaints


def test_without_tensorrt_it_says_that_it_came_too_early(folder: Path):
    """As with LD_PRELOAD."""
    _, complaints = open_there(folder, "")
    assert complaints == (
        "libbsm_trt_register: TensorRT is not in this process yet: open this library later.\n"
    )
