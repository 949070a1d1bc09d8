"""Compiles the kernels, takes them apart, and asks their launching code for its plan."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.kernels.gpus import GPUS
from bench.kernels.ptxas import KernelUsage, read_ptxas_log
from bench.kernels.sass import Kernel, read_sass
from bsmamba2.plugins.build import source_folder
from bsmamba2.plugins.toolchain import Toolchain

PROBE = Path(__file__).with_name("probe.cu")
DTYPES = ("float32", "float16", "bfloat16")
"""In BsmDtype's order."""
_OLDEST = "arch=compute_80,code=compute_80"  # PTX only: the probe's kernels never run


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """The three kernels of one type on one architecture."""

    usages: dict[str, KernelUsage]
    """By mangled name."""
    kernels: list[Kernel]


class Compiler:
    """nvcc and nvdisasm, for one type of the published sizes or others."""

    def __init__(
        self, toolchain: Toolchain, nvdisasm: Path, work: Path, size: Sequence[int]
    ) -> None:
        """Names the tools.

        Args:
            toolchain: Whose nvcc.
            nvdisasm: Program that prints machine code.
            work: Folder for what is compiled.
            size: BsmDtype's number, headdim, d_state.
        """
        self._toolchain, self._nvdisasm, self._work = toolchain, nvdisasm, work
        self._size = tuple(size)
        self._probe: Path | None = None

    def compile(self, architecture: int) -> Compiled:
        """The kernels for compute capability 9.0 (90) or another."""
        cubin = self._work / f"{'_'.join(map(str, self._size))}_{architecture}.cubin"
        source = source_folder() / "cuda/scan_instance.cu"
        # Line numbers change no instruction.
        log = self._nvcc(f"-arch=sm_{architecture}", "-lineinfo", "-cubin", source, "-o", cubin)
        sass = _run([self._nvdisasm, "-c", "-gi", cubin]).stdout
        return Compiled(
            usages={usage.kernel: usage for usage in read_ptxas_log(log)}, kernels=read_sass(sass)
        )

    def plan(self, architecture: int, *, heads: int, sequences: int, steps: int) -> dict[str, Any]:
        """What the launch decides on such a GPU, as probe.cu prints it."""
        if self._probe is None:
            self._probe = self._work / f"probe_{'_'.join(map(str, self._size))}"
            self._nvcc(f"-gencode={_OLDEST}", PROBE, "-o", self._probe)
        shared = GPUS[architecture].block_shared_bytes
        words = (heads, sequences, steps, architecture, shared)
        plan: dict[str, Any] = json.loads(_run([self._probe, *words]).stdout)
        return plan

    def _nvcc(self, *arguments: object) -> str:
        """What it says on stderr."""
        folder = source_folder()
        names = ("BSM_DTYPE", "BSM_HEADDIM", "BSM_D_STATE")
        defines = [f"-D{name}={value}" for name, value in zip(names, self._size, strict=True)]
        command = [self._toolchain.nvcc, "-ccbin", self._toolchain.host, "-std=c++17", "-O3"]
        command += ["--expt-relaxed-constexpr", "-Xptxas=-v", *defines]
        command += [f"-I{folder / name}" for name in ("include", "cuda")]
        return _run([*command, *arguments], self._toolchain.environment).stderr


def find_nvdisasm(toolchain: Toolchain) -> Path:
    """Beside nvcc, on PATH, or in pip's packages.

    Raises:
        FileNotFoundError: There is none.
    """
    roots = [toolchain.nvcc.resolve().parent.parent]
    roots += [root for entry in sys.path for root in Path(entry).glob("nvidia/cu[0-9]*")]
    found = [root / "bin/nvdisasm" for root in roots if (root / "bin/nvdisasm").is_file()]
    found += [Path(name) for name in (shutil.which("nvdisasm"),) if name]
    if not found:
        raise FileNotFoundError("No nvdisasm found: pip install nvidia-cuda-nvdisasm.")
    return found[0]


def _run(
    command: Sequence[object], environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    """A program that must do well.

    Raises:
        RuntimeError: It fails; with what it said.
    """
    words = [str(word) for word in command]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise RuntimeError(f"{Path(words[0]).name} ended with {done.returncode}: {said}")
    return done
