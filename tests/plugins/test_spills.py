"""Law of the kernels: no register spills to memory, on any family of chips.

The kernels are built with the flags of `bsm plugin build`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.kernels.ptxas import KernelUsage, read_ptxas_log
from bsmamba2.plugins.build import build_libraries
from bsmamba2.plugins.compilation import SIZES
from bsmamba2.plugins.toolchain import Toolchain

PUBLISHED = ("0:64:128", "1:64:128", "2:64:128")
KERNELS = {"scan_short", "scan_chunks", "normalise"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architectures", "sizes"),
    [(("90",), SIZES), (("80", "100", "120"), PUBLISHED)],
    ids=["every size", "one chip of every other family"],
)
def test_no_kernel_spills(
    toolchain: Toolchain, own_cache: Path, architectures: tuple[str, ...], sizes: tuple[str, ...]
):
    libraries = build_libraries(architectures=",".join(architectures), plugin=False, sizes=sizes)
    found: dict[tuple[str, str], int] = {}
    for usage in read_ptxas_log(libraries.log.read_text()):
        name = re.search("|".join(KERNELS), usage.kernel)
        assert name, usage.kernel
        assert (usage.spill_bytes, usage.stack_bytes) == (0, 0), usage
        key = name[0], usage.architecture
        found[key] = found.get(key, 0) + 1
    assert found == {(kernel, number): len(sizes) for kernel in KERNELS for number in architectures}


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
