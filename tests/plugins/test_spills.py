"""Law of the kernels: on no kind of chip does a register go to memory.

Built as `bsm plugin build` does, so that the flags are those of the libraries.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from bsmamba2.plugins import build
from bsmamba2.plugins.ptxas import KernelUsage, read_ptxas_log
from bsmamba2.plugins.toolchain import Toolchain

PUBLISHED = ("0:64:128", "1:64:128", "2:64:128")
TARGETS = ("80", "86", "89", "90", "100", "120")
KERNELS = {"scan_short", "scan_chunks", "normalise"}


def usages(architectures: Sequence[str], sizes: Sequence[str]) -> list[KernelUsage]:
    libraries = build.build_libraries(
        architectures=",".join(architectures), plugin=False, sizes=sizes
    )
    return read_ptxas_log(libraries.ptxas_log.read_text())


def spilling(usages: Sequence[KernelUsage]) -> list[KernelUsage]:
    return [usage for usage in usages if usage.spill_bytes or usage.stack_bytes]


def counted(usages: Sequence[KernelUsage]) -> dict[tuple[str, str], int]:
    """(kernel, architecture) -> how many types and sizes of it were compiled."""
    found: dict[tuple[str, str], int] = {}
    for usage in usages:
        name = re.search("|".join(KERNELS), usage.kernel)
        assert name, usage.kernel
        key = name[0], usage.architecture
        found[key] = found.get(key, 0) + 1
    return found


@pytest.mark.slow
def test_published_sizes_spill_on_no_target(toolchain: Toolchain, own_cache: Path):
    found = usages(TARGETS, PUBLISHED)
    assert counted(found) == {(kernel, name): 3 for kernel in KERNELS for name in TARGETS}
    assert not spilling(found)


@pytest.mark.slow
def test_no_size_spills(toolchain: Toolchain, own_cache: Path):
    found = usages(["90"], ())
    assert counted(found) == {(kernel, "90"): 18 for kernel in KERNELS}
    assert not spilling(found)


@pytest.mark.slow
def test_a_planted_spill_is_found(
    toolchain: Toolchain, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "sources"
    shutil.copytree(build.source_folder(), folder)
    path = folder / "cuda/scan_chunks.cuh"
    text = path.read_text()
    # As if for 512 threads: each then has 128 registers, half of what it needs.
    planted = text.replace(
        "BSM_KERNEL(S::kThreads, 2) scan_chunks", "BSM_KERNEL(512, 1) scan_chunks"
    )
    assert planted != text
    path.write_text(planted)
    monkeypatch.setattr(build, "source_folder", lambda: folder)
    found = usages(["90"], ["1:64:128"])
    assert len(found) == len(KERNELS)
    assert ["scan_chunks" in usage.kernel for usage in spilling(found)] == [True]


def test_the_targets_are_those_of_the_build():
    text = (build.source_folder() / "CMakeLists.txt").read_text()
    listed = re.search(r"foreach\(architecture IN ITEMS ([\d ]+)\)", text)
    assert listed
    assert tuple(listed[1].split()) == TARGETS


LOG = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4kindv' for 'sm_90'
ptxas info    : Function properties for _Z4kindv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 39 registers, used 0 barriers
ptxas info    : Compiling entry function '_Z6greedyv' for 'sm_120a'
ptxas info    : Function properties for _Z6greedyv
    24 bytes stack frame, 20 bytes spill stores, 16 bytes spill loads
ptxas info    : Function properties for helper
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 24 bytes cumulative stack size
"""


def test_a_log_is_read():
    kind, greedy = read_ptxas_log(LOG)
    assert kind == KernelUsage(
        kernel="_Z4kindv", architecture="90", registers=39, stack_bytes=0, spill_bytes=0
    )
    assert greedy == KernelUsage(
        kernel="_Z6greedyv", architecture="120a", registers=255, stack_bytes=32, spill_bytes=44
    )


def test_a_log_that_breaks_off_is_no_proof():
    with pytest.raises(ValueError, match="_Z6greedyv"):
        read_ptxas_log(LOG[: LOG.index("    24 bytes")])
