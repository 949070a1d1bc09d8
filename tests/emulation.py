"""Builds the CUDA kernels for the emulated GPU of `cuda_on_host`, by g++."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

HOST = Path(__file__).parent / "cuda_on_host"
PLUGINS = Path(str(files("bsmamba2.plugins")))

Size = tuple[int, int, int]  # dtype, headdim, d_state
ALL_SIZES: tuple[Size, ...] = tuple(itertools.product((0, 1, 2), (32, 64), (32, 64, 128)))
PUBLISHED_SIZES: tuple[Size, ...] = tuple((dtype, 64, 128) for dtype in (0, 1, 2))


def build_scan(
    target: Path,
    sizes: Iterable[Size] = ALL_SIZES,
    *,
    sanitizer: str = "",
    main: Path | None = None,
) -> Path:
    """Compiles the scan into a shared library, or with `main` into a program.

    Args:
        target: The file to write; objects go beside it.
        sizes: The kernels to build.
        sanitizer: "thread" or "address": applies to the kernels and `main`, not to the emulated
            machine, whose own accesses are not under test.
        main: A C++ file with the program.
    """
    sizes = list(sizes)
    listed = " ".join("X({},{},{})".format(*size) for size in sizes)
    flags = ["-std=c++17", "-O2", "-march=native", "-g1", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    flags += [f"-I{folder}" for folder in (PLUGINS / "include", PLUGINS / "cuda", HOST)]
    checked = [f"-fsanitize={sanitizer}"] if sanitizer else []
    jobs = [
        (HOST / "machine.cpp", "machine", []),
        (PLUGINS / "cuda/scan.cu", "scan", [*checked, f"-DBSM_INSTANCE_LIST={listed}"]),
    ]
    for dtype, headdim, d_state in sizes:
        defines = [f"-DBSM_DTYPE={dtype}", f"-DBSM_HEADDIM={headdim}", f"-DBSM_D_STATE={d_state}"]
        name = f"scan_{dtype}_{headdim}_{d_state}"
        jobs.append((PLUGINS / "cuda/scan_instance.cu", name, [*checked, *defines]))
    if main:
        jobs.append((main, "main", checked))

    def compile_one(job: tuple[Path, str, list[str]]) -> str:
        source, name, more = job
        output = target.with_name(f"{target.stem}_{name}.o")
        _run(["g++", *flags, *more, "-x", "c++", "-c", str(source), "-o", str(output)])
        return str(output)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, jobs))
    kind = [] if main else ["-shared"]
    _run(["g++", *kind, *checked, *objects, "-pthread", "-o", str(target)])
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, f"{' '.join(command)}\n{done.stderr}"
