"""One run of CMake and of the compilers, with all they say in a log."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from bsmamba2.errors import PluginError
from bsmamba2.plugins.toolchain import Toolchain

ALL_SIZES = 18
"""Kernels: three types, two values of headdim, three of d_state."""
_PROGRESS = re.compile(r"\[ *\d+(?:/\d+|%)\] (?:Building|Linking) .*")
_ERROR = re.compile(  # of CMake, whose text is on the next line; of all others
    r"^CMake Error[^\n]*\n\s*(?P<cmake>.+)$|^(?P<other>.*(?:\berror\b|\bfatal\b|undefined).*)$",
    re.MULTILINE,
)
_HINTS = (  # what the log says, what it means
    (
        r"Unsupported gpu architecture 'compute_(\d+)'",
        "nvcc {release} has no target {0}, install a newer one, or name one of 'nvcc "
        "--list-gpu-arch' with +PTX, such as --arch 90+PTX, for the driver to compile",
    ),
    (r"unsupported \w+ version", "nvcc {release} refuses {host}, name another in CUDAHOSTCXX"),
    (r"[Nn]o space left on device", "the disk is full"),
    (r"\bKilled\b|signal 9", "a compiler was killed, perhaps for want of memory, try --jobs 1"),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What CMakeLists.txt wants to know."""

    architectures: tuple[str, ...]
    """In CMake's words, or ("all",)."""
    sizes: tuple[str, ...]
    """Kernels as "dtype:headdim:d_state"; none for all."""
    headers: Path | None
    """The folder of TensorRT's headers; None builds no plugin."""
    jobs: int
    """Compilers at a time."""

    @property
    def cmake_arguments(self) -> list[str]:
        """The options as CMake's definitions."""
        threads = max(1, self.jobs // (len(self.sizes) or ALL_SIZES))
        return [
            f"-DBSM_ARCHITECTURES={';'.join(self.architectures)}",
            f"-DBSM_SIZES={';'.join(self.sizes)}",
            f"-DBSM_NVCC_THREADS={threads}",
            f"-DBSM_TENSORRT={'ON' if self.headers else 'OFF'}",
            f"-DTENSORRT_INCLUDE_DIR={self.headers or ''}",
        ]


def run_cmake(
    sources: Path,
    build: Path,
    toolchain: Toolchain,
    options: Options,
    log: Path,
    report: Callable[[str], None],
) -> None:
    """Configures and builds `sources` in the folder `build`.

    Raises:
        PluginError: It failed; `log`, which the sentence names, says why.
    """
    cmake = str(toolchain.cmake)
    configure = [cmake, "-S", str(sources), "-B", str(build)]
    configure += ["-DCMAKE_BUILD_TYPE=Release", *toolchain.cmake_arguments]
    configure += options.cmake_arguments
    compile_ = [cmake, "--build", str(build), "--parallel", str(options.jobs)]
    with log.open("w", encoding="utf-8") as file:
        for command in (configure, compile_):
            code = _run(command, toolchain.environment, file, report)
            if code:
                raise PluginError(_failure(log, toolchain))


def _run(
    command: Sequence[str], environment: dict[str, str], log: TextIO, report: Callable[[str], None]
) -> int:
    """The exit code; the log gets every line, `report` those of the progress."""
    log.write(f"$ {' '.join(command)}\n")
    log.flush()
    with _process(command, environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            log.flush()
            if _PROGRESS.match(line):
                report(line.rstrip())
        return process.wait()


@contextlib.contextmanager
def _process(
    command: Sequence[str], environment: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """A process with all of its children, which end when the block is left in whatever way."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                for _ in process.stdout or ():  # up to the end of the last child
                    pass


def _failure(log: Path, toolchain: Toolchain) -> str:
    """One sentence, with what is known to go wrong or else the first error of the log."""
    text = log.read_text("utf-8")
    for pattern, hint in _HINTS:
        if found := re.search(pattern, text):
            meant = hint.format(*found.groups(), release=toolchain.release, host=toolchain.host)
            return f"Building the CUDA libraries failed: {meant}; see {log}."
    first = _ERROR.search(text)
    words = (first["cmake"] or first["other"]).split() if first else []
    detail = f" ({' '.join(words)[:200]})" if words else ""
    wheels = (
        "; the packages nvidia-cuda-nvcc, -crt, -nvvm, -runtime and -cccl must be of one release"
        if toolchain.from_wheels
        else ""
    )
    return f"Building the CUDA libraries failed{detail}: see {log}{wheels}."
