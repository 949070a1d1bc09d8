"""Finds the programs that a build needs: nvcc and a C++ compiler."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import PluginError

OLDEST_NVCC = (12, 1)
_TOOLKITS = (Path("/usr/local/cuda"), Path("/opt/cuda"))
_WHEELS = "nvidia-cuda-nvcc nvidia-cuda-cccl"  # the first depends on headers, runtime and NVVM
_FLAG_VARIABLES = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")  # nvcc's own


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """Compilers that were found and that run."""

    nvcc: Path
    nvcc_version: str
    """The output of `nvcc --version`."""
    known: tuple[int, ...]
    """Architectures that nvcc supports; 90 stands for 9.0."""
    host: Path
    """The C++ compiler that nvcc calls."""
    host_version: str

    @property
    def release(self) -> str:
        """nvcc's release, such as 13.0."""
        return ".".join(map(str, _nvcc_release(self.nvcc_version)))

    @property
    def fingerprint(self) -> tuple[str, ...]:
        """Everything that the compilers' output depends on, apart from the sources."""
        flags = (f"{name}={os.environ.get(name, '')}" for name in _FLAG_VARIABLES)
        return (self.nvcc_version, self.host_version, *flags)

    @property
    def environment(self) -> dict[str, str]:
        """Environment of the build's processes: messages in English, and pip's CUDA libraries.

        nvcc from pip looks for libraries in lib64, but the packages have only lib.
        """
        environment = os.environ | {"LC_ALL": "C"}
        root = self.nvcc.resolve().parent.parent
        if (root / "lib").is_dir() and not (root / "lib64").exists():
            folders = [str(root / "lib"), environment.get("LIBRARY_PATH", "")]
            environment["LIBRARY_PATH"] = os.pathsep.join(filter(None, folders))
        return environment


def find_toolchain() -> Toolchain:
    """Finds the programs and asks them for their versions.

    Raises:
        PluginError: A program is missing, does not run or is too old.
    """
    if sys.platform != "linux":
        raise PluginError(
            f"The CUDA libraries can only be built on Linux, not on {sys.platform}: build them "
            "there."
        )
    nvcc = find_nvcc()
    version = _ask(nvcc, "--version")
    release = _nvcc_release(version)
    if release < OLDEST_NVCC:
        raise PluginError(
            f"{nvcc} is nvcc {release[0]}.{release[1]}, older than {OLDEST_NVCC[0]}."
            f"{OLDEST_NVCC[1]}: install a newer CUDA toolkit and name its nvcc in CUDACXX."
        )
    host = _find_host()
    return Toolchain(
        nvcc=nvcc,
        nvcc_version=version,
        known=tuple(map(int, re.findall(r"compute_(\d+)\b", _ask(nvcc, "--list-gpu-arch")))),
        host=host,
        host_version=_ask(host, "--version"),
    )


def find_nvcc() -> Path:
    """Finds nvcc: CUDACXX, then PATH, CUDA_HOME, the usual folders, and pip's packages.

    Raises:
        PluginError: There is no nvcc.
    """
    if named := _named_program("CUDACXX"):
        return named
    if found := shutil.which("nvcc"):
        return Path(found)
    homes = (os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH"))
    roots = [*(Path(home) for home in homes if home), *_TOOLKITS, *_wheel_roots()]
    for root in roots:
        if os.access(root / "bin/nvcc", os.X_OK):
            return root / "bin/nvcc"
    raise PluginError(
        "No nvcc found: install the CUDA toolkit and put nvcc on PATH or name it in CUDACXX, "
        f"or pip install {_WHEELS}."
    )


def _wheel_roots() -> list[Path]:
    """Folders such as site-packages/nvidia/cu13, newest first."""
    roots = (root for entry in sys.path for root in Path(entry).glob("nvidia/cu[0-9]*"))
    return sorted(roots, key=lambda root: root.name, reverse=True)


def _find_host() -> Path:
    """Finds the C++ compiler: the one that nvcc's variables or CXX name, or the system's."""
    for variable in ("CUDAHOSTCXX", "NVCC_CCBIN", "CXX"):
        if named := _named_program(variable):
            return named
    for name in ("g++", "c++", "clang++"):
        if found := shutil.which(name):
            return Path(found)
    raise PluginError("No C++ compiler found: install g++, or name one in CUDAHOSTCXX.")


def _named_program(variable: str) -> Path | None:
    """Returns the program that an environment variable names; None if the variable is unset."""
    name = os.environ.get(variable)
    if not name:
        return None
    found = shutil.which(name)
    if not found:
        raise PluginError(
            f"{variable} names '{name}', which is not a program: correct or unset it."
        )
    return Path(found).absolute()


def _nvcc_release(version: str) -> tuple[int, int]:
    match = re.search(r"release (\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _ask(program: Path, option: str) -> str:
    """Returns what a program prints for `option`.

    Raises:
        PluginError: The program does not run, or fails.
    """
    try:
        done = subprocess.run([program, option], capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise PluginError(
            f"{program} does not run: {error.strerror or error}; install it again."
        ) from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-200:]
        said = said.rstrip(".") or f"code {done.returncode}"
        raise PluginError(f"'{program} {option}' fails: {said}; install it again.")
    return done.stdout
