"""Headers, loading and the library's name; parsing is tested in `test_rtx`."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from processes import printed, python

from bsmamba2.errors import PluginError
from bsmamba2.formats.operator import OP_TYPE, PLUGIN_NAMESPACE, PLUGIN_VERSION
from bsmamba2.plugins import tensorrt_library
from bsmamba2.plugins.rtx_name import shared_library
from bsmamba2.plugins.tensorrt_library import find_include_dir, load_plugin


@pytest.fixture
def rtx() -> ModuleType:
    return pytest.importorskip("tensorrt_rtx")


# --- headers ---


def headers(folder: Path, version: str) -> Path:
    folder.mkdir()
    (folder / "NvInferRuntime.h").touch()
    (folder / "NvInferVersion.h").write_text(version)
    return folder


@pytest.mark.parametrize(
    "version",
    [
        "#define NV_TENSORRT_MAJOR 10 //!< major\n#define NV_TENSORRT_MINOR 7\n",
        "#define TRT_MAJOR_ENTERPRISE 11\n#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE\n",
    ],
)
def test_named_headers_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str):
    named = headers(tmp_path / "named", version)
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(named))
    assert find_include_dir() == named


def test_named_folder_without_headers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path))
    with pytest.raises(
        PluginError, match=r"names .*, which has no NvInferRuntime\.h: correct or unset it\.$"
    ):
        find_include_dir()


@pytest.mark.parametrize(
    ("version", "found"),
    [("#define NV_TENSORRT_MAJOR 8 //!< major\n", "TensorRT 8"), ("", "an unknown TensorRT")],
)
def test_old_headers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, found: str
):
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(headers(tmp_path / "old", version)))
    with pytest.raises(PluginError, match=f"belong to {found}: the plugin needs 10 or newer"):
        find_include_dir()


def test_sdk_comes_before_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "sdk").mkdir()
    include = headers(tmp_path / "sdk" / "include", "#define NV_TENSORRT_MAJOR 10\n")
    monkeypatch.delenv("TENSORRT_INCLUDE_DIR", raising=False)
    monkeypatch.setenv("TENSORRT_ROOT", str(tmp_path / "sdk"))
    assert find_include_dir() == include


def test_no_headers_are_an_error_that_names_both_ways(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TENSORRT_INCLUDE_DIR", raising=False)
    monkeypatch.setattr(tensorrt_library, "_usual_folders", lambda: iter(()))
    with pytest.raises(PluginError, match=r"set TENSORRT_INCLUDE_DIR .* pip install .*kernel-lens"):
        find_include_dir()


# --- loading ---


def test_loading_registers_the_creator_and_twice_is_no_error(rtx: ModuleType, plugin_library: Path):
    load_plugin(rtx, plugin_library)
    load_plugin(rtx, plugin_library)
    creator = rtx.get_plugin_registry().get_creator(OP_TYPE, PLUGIN_VERSION, PLUGIN_NAMESPACE)
    assert creator is not None


def test_opening_the_library_registers_nothing(rtx: ModuleType, plugin_library: Path):
    """LD_PRELOAD does no more than this."""
    code = """
import ctypes, sys, tensorrt_rtx
ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)
print([creator.name for creator in tensorrt_rtx.get_plugin_registry().all_creators])
"""
    assert OP_TYPE not in printed(code, plugin_library)


LOAD = """
import sys, tensorrt_rtx
from bsmamba2.errors import BsmError
from bsmamba2.plugins.tensorrt_library import load_plugin
try:
    load_plugin(tensorrt_rtx, sys.argv[1])
except BsmError as error:
    print(error)
"""


def load_apart(path: Path) -> str:
    """Loads a plugin in a process where nothing is registered yet; returns the error."""
    return printed(LOAD, path).strip()


def test_what_cannot_be_loaded_is_named(rtx: ModuleType, emulated_scan: Path, tmp_path: Path):
    missing, text = tmp_path / "missing.so", tmp_path / "text.so"
    text.write_text("no library")
    assert load_apart(missing) == f"No such file: {missing}."
    assert load_apart(text).startswith(f"The plugin library cannot be opened: {text}: ")
    found = load_apart(emulated_scan)
    assert found == f"{emulated_scan.resolve()} is not a TensorRT plugin: it has no getCreators."


def test_plugin_needs_no_symbol_of_tensorrt(plugin_library: Path):
    """So it links without libnvinfer, and loads on machines without TensorRT."""
    command = ["nm", "-D", "--undefined-only", str(plugin_library)]
    undefined = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = [line.split()[-1] for line in undefined.splitlines()]
    assert [name for name in names if "nvinfer" in name or name.startswith("getInfer")] == []
    assert {name for name in names if name.startswith("cuda")} == set()


def test_plugin_shows_two_functions_only(plugin_library: Path):
    command = ["nm", "-D", "--defined-only", str(plugin_library)]
    defined = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in defined.splitlines() if " T " in line}
    assert names == {"getCreators", "setLoggerFinder"}


# --- the name under which TensorRT-RTX looks for itself ---


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux's loader")
def test_library_without_code_is_found_by_its_name_and_leads_to_another(tmp_path: Path):
    name = "libbsmamba2-of-a-test.so"
    with pytest.raises(OSError, match=name):
        ctypes.CDLL(name)
    path = tmp_path / "another-name.so"
    path.write_bytes(shared_library(name, "libm.so.6"))
    ctypes.CDLL(str(path))
    path.unlink()
    library = ctypes.CDLL(name)
    library.cos.restype, library.cos.argtypes = ctypes.c_double, (ctypes.c_double,)
    assert library.cos(0.0) == 1.0


def test_name_cannot_be_provided_before_tensorrt_rtx_is_loaded():
    code = "from bsmamba2.plugins.rtx_name import provide_rtx_name; provide_rtx_name()"
    assert python(code).stderr.endswith("TensorRT-RTX is not loaded: import tensorrt_rtx first.\n")


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="needs tensorrt-rtx")
def test_name_is_provided_where_no_file_can_be_written_beside_tensorrt_rtx(tmp_path: Path):
    """Nothing is left in the temporary folder, and nothing else is written."""
    code = """
import ctypes, tensorrt_rtx
from bsmamba2.plugins.rtx_name import provide_rtx_name
provide_rtx_name()
provide_rtx_name()
assert ctypes.CDLL("libtensorrt_rtx.so").getInferLibMajorVersion() >= 1
"""
    printed(code, TMPDIR=str(tmp_path), PATH="")
    assert list(tmp_path.iterdir()) == []
