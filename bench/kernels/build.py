"""Compiles and disassembles the kernels, and runs their launch code to see its decisions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
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
"""Types in the order of BsmDtype."""
_OLDEST = "arch=compute_80,code=compute_80"  # PTX only: the probe's kernels never run


@dataclass(frozen=True, kw_only=True)
class Compiler:
    """nvcc and nvdisasm, for the kernels of one type and size."""

    toolchain: Toolchain
    nvdisasm: Path
    work: Path
    """Folder for compiled files."""
    size: tuple[int, int, int]
    """BsmDtype's number, headdim, d_state."""

    def compile(self, architecture: int) -> dict[str, tuple[Kernel, KernelUsage]]:
        """Compiles the kernels for a compute capability, 90 for 9.0; returns them by short name."""
        cubin = self.work / f"{'_'.join(map(str, self.size))}_{architecture}.cubin"
        source = source_folder() / "cuda/scan_instance.cu"
        # -lineinfo changes no instruction.
        log = self._nvcc(f"-arch=sm_{architecture}", "-lineinfo", "-cubin", source, "-o", cubin)
        usages = {usage.kernel: usage for usage in read_ptxas_log(log)}
        kernels = read_sass(self._run(self.nvdisasm, "-c", "-gi", cubin).stdout)
        return {kernel.short_name: (kernel, usages[kernel.name]) for kernel in kernels}

    def launch(
        self, architecture: int, *, heads: int, sequences: int, steps: int
    ) -> dict[str, Any]:
        """Returns what the launch code decides for such a GPU, as probe.cu prints it."""
        probe = self.work / f"probe_{'_'.join(map(str, self.size))}"
        if not probe.exists():
            self._nvcc(f"-gencode={_OLDEST}", PROBE, "-o", probe)
        shared = GPUS[architecture].block_shared_bytes
        printed = self._run(probe, heads, sequences, steps, architecture, shared).stdout
        launch: dict[str, Any] = json.loads(printed)
        return launch

    def _nvcc(self, *arguments: object) -> str:
        """Runs nvcc; returns its stderr."""
        folder = source_folder()
        names = ("BSM_DTYPE", "BSM_HEADDIM", "BSM_D_STATE")
        defines = [f"-D{name}={value}" for name, value in zip(names, self.size, strict=True)]
        command = [self.toolchain.nvcc, "-ccbin", self.toolchain.host, "-std=c++17", "-O3"]
        command += ["--expt-relaxed-constexpr", "-Xptxas=-v", *defines]
        command += [f"-I{folder / name}" for name in ("include", "cuda")]
        return self._run(*command, *arguments).stderr

    def _run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Runs a program; if it fails, raises RuntimeError with its output."""
        words, environment = [str(word) for word in command], self.toolchain.environment
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[-2000:]
            raise RuntimeError(f"{Path(words[0]).name} ended with {done.returncode}: {said}")
        return done


def find_nvdisasm(toolchain: Toolchain) -> Path:
    """Finds nvdisasm beside nvcc, in pip's packages, or on PATH.

    Raises:
        FileNotFoundError: It is in none of these.
    """
    wheels = [root / "bin" for entry in sys.path for root in Path(entry).glob("nvidia/cu[0-9]*")]
    folders = [toolchain.nvcc.resolve().parent, *wheels, os.environ.get("PATH", os.defpath)]
    if found := shutil.which("nvdisasm", path=os.pathsep.join(map(str, folders))):
        return Path(found)
    raise FileNotFoundError("No nvdisasm found: pip install nvidia-cuda-nvdisasm.")
