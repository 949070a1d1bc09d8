"""Compiles and links the libraries with nvcc, several files at a time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import PluginError
from bsmamba2.plugins.toolchain import Toolchain

SCAN, PLUGIN = "libbsm_scan.so", "libbsm_trt_plugin.so"
SIZES = tuple(f"{t}:{p}:{n}" for t in (0, 1, 2) for p in (32, 64) for n in (32, 64, 128))
"""All kernels, each as dtype:headdim:d_state with the number of a BsmDtype."""
_FLAGS = (
    *("-c", "-std=c++17", "-O3", "-DNDEBUG", "--expt-relaxed-constexpr", "-Xptxas=-v"),
    "-Xcompiler=-fPIC,-fvisibility=hidden,-fvisibility-inlines-hidden,-Wall",
)
_LINK = ("-shared", "-cudart=static", "-Xlinker=--no-undefined,--strip-all")
_EXPORTED = {
    SCAN: ("bsm_scan_abi", "bsm_scan_workspace", "bsm_scan_enqueue", "bsm_scan_status_text",
           "bsm_scan_cuda_error"),
    PLUGIN: ("setLoggerFinder", "getCreators"),
}  # fmt: skip
RECIPE = (_FLAGS, _LINK, _EXPORTED)
_ERROR = re.compile(r"^.*(?:\berror\b|\bfatal\b|undefined).*$", re.MULTILINE)
_HINTS = (  # a pattern in the log, its meaning
    (
        r"unsupported \w+ version",
        "nvcc {0.release} does not support {0.host}, name another compiler in CUDAHOSTCXX",
    ),
    (r"[Nn]o space left on device", "the disk is full"),
    (
        r"\bKilled\b|signal 9",
        "a compiler was killed, perhaps for lack of memory, try 'bsm plugin build --jobs 1'",
    ),
)
_POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to build."""

    architectures: tuple[str, ...]
    """Targets of nvcc, such as sm_90 and compute_90."""
    sizes: tuple[str, ...]
    """Kernels, out of SIZES."""
    headers: Path | None
    """The folder of TensorRT's headers; None builds no plugin."""
    jobs: int
    """Compilers to run at a time."""


def compile_libraries(
    sources: Path,
    tree: Path,
    toolchain: Toolchain,
    options: Options,
    log: Path,
    report: Callable[[str], None],
) -> None:
    """Builds the libraries and their object files in the folder `tree`.

    Args:
        sources: The folder that holds `cuda`, `include` and `tensorrt`.
        tree: An empty folder.
        toolchain: The compilers.
        options: What to build.
        log: Receives the commands and their output, with ptxas's figures for each kernel.
        report: Called with a line for each file.

    Raises:
        PluginError: The build failed; the sentence names `log`.
    """
    scan, jobs = _scan_objects(sources, tree, options), options.jobs
    paths = sorted((sources / "tensorrt").glob("*.cpp")) if options.headers else []
    plugin = {f"{path.stem}.o": ["-isystem", str(options.headers), str(path)] for path in paths}
    code = [f"-gencode=arch=compute_{t.partition('_')[2]},code={t}" for t in options.architectures]
    more = [*code, f"--threads={max(1, jobs // len(scan))}", f"-I{sources / 'include'}"]
    compiling = {name: [*_FLAGS, *more, *rest] for name, rest in (scan | plugin).items()}
    linking = {SCAN: [*_LINK, *code, *scan]}
    if plugin:
        linking[PLUGIN] = [*_LINK, *code, *scan, *plugin]
    for library in linking:
        # Otherwise templates of the C++ library are exported in spite of -fvisibility=hidden.
        names = "; ".join(_EXPORTED[library])
        (tree / f"{library}.map").write_text(f"{{ global: {names}; local: *; }};\n")
        linking[library].append(f"-Xlinker=--version-script={library}.map")
    log.write_text("")
    for files in (compiling, linking):
        _run_all(files, tree, toolchain, jobs, log, report)


def _scan_objects(sources: Path, tree: Path, options: Options) -> dict[str, list[str]]:
    """The object files of both libraries: name -> arguments of nvcc."""
    sizes = [size.split(":") for size in options.sizes]
    listed = " ".join("X({}, {}, {})".format(*size) for size in sizes)
    # A header, because nvcc splits the value of -D at commas.
    (tree / "instances.h").write_text(f"#define BSM_INSTANCE_LIST {listed}\n")
    objects = {"scan.o": ["-include=instances.h", str(sources / "cuda/scan.cu")]}
    for size in sizes:
        names = ("BSM_DTYPE", "BSM_HEADDIM", "BSM_D_STATE")
        defines = [f"-D{name}={value}" for name, value in zip(names, size, strict=True)]
        instance = str(sources / "cuda/scan_instance.cu")
        objects[f"scan_{'_'.join(size)}.o"] = [*defines, instance]
    return objects


def _run_all(
    files: Mapping[str, Sequence[str]],
    tree: Path,
    toolchain: Toolchain,
    jobs: int,
    log: Path,
    report: Callable[[str], None],
) -> None:
    """Runs nvcc for each file with its arguments; if one fails, kills those that still run."""
    environment = toolchain.environment | {"TMPDIR": str(tree)}
    nvcc = [str(toolchain.nvcc), "-ccbin", str(toolchain.host)]
    waiting = list(files)
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                command = [*nvcc, *files[name], "-o", name]
                with (tree / f"{name}.log").open("w") as said:
                    said.write(f"$ {' '.join(command)}\n")
                    said.flush()
                    running[name] = subprocess.Popen(
                        command, cwd=tree, env=environment, stdin=subprocess.DEVNULL,
                        stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
                    )  # fmt: skip
            for name in [name for name, process in running.items() if process.poll() is not None]:
                with log.open("a", encoding="utf-8") as file:
                    file.write((tree / f"{name}.log").read_text("utf-8", errors="replace"))
                if running.pop(name).returncode:
                    raise PluginError(_failure(log, toolchain))
                report(f"[{len(files) - len(waiting) - len(running)}/{len(files)}] {name}")
            time.sleep(_POLL_S)
    finally:
        for process in running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _failure(log: Path, toolchain: Toolchain) -> str:
    """One sentence with a hint if the log shows a known problem, otherwise with its first error."""
    text = log.read_text("utf-8")
    for pattern, hint in _HINTS:
        if re.search(pattern, text):
            return f"Building the CUDA libraries failed: {hint.format(toolchain)}; see {log}."
    first = _ERROR.search(re.sub(r"^\$ .*$", "", text, flags=re.MULTILINE))
    detail = f" ({' '.join(first[0].split())[:200]})" if first else ""
    wheels = (
        "; the packages nvidia-cuda-nvcc, -crt, -nvvm, -runtime and -cccl must be of one release"
        if toolchain.nvcc.parent.parent.parent.name == "nvidia"
        else ""
    )
    return f"Building the CUDA libraries failed{detail}: see {log}{wheels}."
