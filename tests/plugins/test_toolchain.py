"""Laws of finding compilers: the order of the search, and one sentence for each missing one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bsmamba2.errors import PluginError
from bsmamba2.plugins import toolchain
from bsmamba2.plugins.toolchain import find_nvcc, find_toolchain

VARIABLES = ("CUDACXX", "CUDA_HOME", "CUDA_PATH", "CUDAHOSTCXX", "NVCC_CCBIN", "CXX")
NVCC = 'case $1 in --version) echo "release 12.4, V12.4.131";; *) echo compute_80 compute_90;; esac'


class Programs:
    """A folder of programs, which is the only one on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("nvcc", NVCC)
        self.write("g++", "echo g++ 12")

    def write(self, name: str, script: str) -> Path:
        path = (self.folder / name).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(toolchain, "_TOOLKITS", (tmp_path / "toolkit",))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return Programs(tmp_path / "bin")


def test_all_that_a_build_needs_is_found(programs: Programs) -> None:
    found = find_toolchain()
    assert (found.nvcc, found.host) == (programs.folder / "nvcc", programs.folder / "g++")
    assert (found.release, found.known) == ("12.4", (80, 90))


def test_nvcc_is_looked_for_in_order(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = [programs.write(f"../site/nvidia/cu{n}/bin/nvcc", NVCC) for n in (12, 13)]
    toolkit = programs.write("../toolkit/bin/nvcc", NVCC)
    home = programs.write("../home/bin/nvcc", NVCC)
    named = programs.write("../named/nvcc-12", NVCC)

    monkeypatch.setenv("CUDACXX", str(named))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    assert find_nvcc() == named
    monkeypatch.delenv("CUDACXX")
    assert find_nvcc() == programs.folder / "nvcc"
    (programs.folder / "nvcc").unlink()
    assert find_nvcc() == home
    monkeypatch.delenv("CUDA_HOME")
    assert find_nvcc() == toolkit
    toolkit.unlink()
    assert find_nvcc() == wheels[1]


def test_wheels_link_with_their_own_library_folder(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    assert find_toolchain().environment["LIBRARY_PATH"] == str(tmp_path / "lib")
    (tmp_path / "lib64").mkdir()
    environment = find_toolchain().environment
    assert environment.get("LIBRARY_PATH") == os.environ.get("LIBRARY_PATH")


@pytest.mark.parametrize(
    ("absent", "sentence"),
    [
        ("nvcc", r"^No nvcc found: .* PATH .* CUDACXX, or pip install nvidia-cuda-nvcc \S+\.$"),
        ("g++", r"^No C\+\+ compiler found: install g\+\+, or name one in CUDAHOSTCXX\.$"),
    ],
)
def test_absent_program_is_named(programs: Programs, absent: str, sentence: str) -> None:
    (programs.folder / absent).unlink()
    with pytest.raises(PluginError, match=sentence):
        find_toolchain()


@pytest.mark.parametrize(
    ("program", "script", "sentence"),
    [
        ("nvcc", "echo release 11.8", r"nvcc is nvcc 11\.8, older than 12\.1: .*CUDACXX\.$"),
        ("nvcc", "echo no libc >&2; exit 1", r"^'.*nvcc --version' fails: no libc; .* again\.$"),
        ("g++", "exit 3", r"^'.*g\+\+ --version' fails: code 3; install it again\.$"),
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
    with pytest.raises(
        PluginError, match=f"^{variable} names 'absent-compiler', .* correct or unset"
    ):
        find_toolchain()


def test_other_systems_are_refused(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(PluginError, match="on Linux, not on darwin"):
        find_toolchain()
