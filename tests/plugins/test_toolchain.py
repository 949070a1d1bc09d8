"""Laws of finding compilers: the order, and one sentence for each that is missing."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from bsmamba2.errors import PluginError
from bsmamba2.plugins import toolchain
from bsmamba2.plugins.toolchain import Toolchain, find_nvcc, find_toolchain

VARIABLES = ("CUDACXX", "CUDA_HOME", "CUDA_PATH", "CUDAHOSTCXX", "NVCC_CCBIN", "CXX")
NVCC = 'echo "release 12.4, V12.4.131"'
CMAKE = "echo cmake version 3.24.0"


class Programs:
    """A folder of programs that is all of PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, script in {"nvcc": NVCC, "cmake": CMAKE, "g++": "echo g++ 12"}.items():
            self.write(name, script)
        self.write("ninja", "exit 0")

    def write(self, name: str, script: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(toolchain, "_TOOLKITS", (tmp_path / "toolkit",))
    monkeypatch.setattr(toolchain, "_wheel_roots", lambda: [])
    monkeypatch.setattr(toolchain.sysconfig, "get_path", lambda _: str(tmp_path / "scripts"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return Programs(tmp_path / "bin")


def test_this_machine_has_what_the_tests_build_with() -> None:
    find_toolchain()


def test_all_that_a_build_needs_is_found(programs: Programs) -> None:
    found = find_toolchain()
    assert found.nvcc == programs.folder / "nvcc"
    assert found.host == programs.folder / "g++"
    assert found.release == "12.4"
    assert found.generator == "Ninja"
    assert not found.from_wheels


def test_make_stands_in_for_ninja(programs: Programs) -> None:
    programs.remove("ninja")
    programs.write("make", "exit 0")
    assert find_toolchain().generator == "Unix Makefiles"


def test_programs_of_pip_beside_python_are_found(programs: Programs, tmp_path: Path) -> None:
    shutil.move(programs.folder / "cmake", tmp_path / "cmake")
    (tmp_path / "scripts").mkdir()
    shutil.move(tmp_path / "cmake", tmp_path / "scripts/cmake")
    assert find_toolchain().cmake == tmp_path / "scripts/cmake"


# --- nvcc ---


def test_nvcc_is_looked_for_in_order(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = programs.write("../site/nvidia/cu13/bin/nvcc", NVCC).resolve()
    monkeypatch.setattr(toolchain, "_wheel_roots", lambda: [wheel.parents[1]])
    toolkit = programs.write("../toolkit/bin/nvcc", NVCC).resolve()
    home = programs.write("../home/bin/nvcc", NVCC).resolve()
    named = programs.write("../named/nvcc-12", NVCC).resolve()

    monkeypatch.setenv("CUDACXX", str(named))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    assert find_nvcc() == named
    monkeypatch.delenv("CUDACXX")
    assert find_nvcc() == programs.folder / "nvcc"
    programs.remove("nvcc")
    assert find_nvcc() == home
    monkeypatch.delenv("CUDA_HOME")
    assert find_nvcc() == toolkit
    toolkit.unlink()
    assert find_nvcc() == wheel
    assert find_toolchain().from_wheels


def test_nvcc_of_wheels_is_found_in_this_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cu12", "cu13"):
        (tmp_path / "nvidia" / name).mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert [root.name for root in toolchain._wheel_roots()] == ["cu13", "cu12"]


def test_wheels_link_with_their_own_library_folder(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    assert find_toolchain().environment["LIBRARY_PATH"] == str(tmp_path / "lib")
    (tmp_path / "lib64").mkdir()
    environment = find_toolchain().environment
    assert environment.get("LIBRARY_PATH") == os.environ.get("LIBRARY_PATH")


def test_flags_of_the_environment_are_in_the_fingerprint(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Toolchain = find_toolchain()
    before = found.fingerprint
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-G")
    assert found.fingerprint != before


# --- one sentence each ---


@pytest.mark.parametrize(
    ("absent", "sentence"),
    [
        ("nvcc", r"^No nvcc found: .* PATH .* CUDACXX, or pip install nvidia-cuda-nvcc \S+\.$"),
        ("g++", r"^No C\+\+ compiler found: install g\+\+, or name one in CUDAHOSTCXX\.$"),
        ("cmake", r"^No cmake found: pip install cmake \(3\.24 or newer\)\.$"),
        ("ninja", r"^Neither ninja nor make found: pip install ninja\.$"),
    ],
)
def test_absent_program_is_named(programs: Programs, absent: str, sentence: str) -> None:
    programs.remove(absent)
    with pytest.raises(PluginError, match=sentence):
        find_toolchain()


@pytest.mark.parametrize(
    ("program", "script", "sentence"),
    [
        ("nvcc", "echo release 11.8", r"nvcc is nvcc 11\.8, older than 12\.1: .*CUDACXX\.$"),
        ("nvcc", "echo no libc >&2; exit 1", r"^'.*nvcc --version' fails: no libc\.$"),
        ("g++", "exit 3", r"^'.*g\+\+ --version' fails: code 3\.$"),
        ("cmake", "echo cmake version 3.18.4", r"cmake is older than 3\.24: pip install cmake\.$"),
    ],
)
def test_old_or_broken_program_is_named(
    programs: Programs, program: str, script: str, sentence: str
) -> None:
    programs.write(program, script)
    with pytest.raises(PluginError, match=sentence):
        find_toolchain()


@pytest.mark.parametrize("variable", ["CUDACXX", "CUDAHOSTCXX", "NVCC_CCBIN", "CXX"])
def test_variable_that_names_no_program_is_named(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "absent-compiler")
    with pytest.raises(PluginError, match=f"^{variable} names 'absent-compiler', .* mend or unset"):
        find_toolchain()


def test_other_systems_are_refused(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(PluginError, match="on Linux only, not on darwin"):
        find_toolchain()
