"""Laws of the scan for CPUs: every instruction set against a float64 reference."""

from __future__ import annotations

import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cpu_scan import CpuScan, Isa
from tolerances import assert_close, extreme_slack
from torch import Tensor

from bench.common.scans import (
    EXTREMES,
    FULL,
    ODD,
    ONE_HEAD,
    ScanInputs,
    extreme_inputs,
    head_sizes,
    scan_inputs,
)
from bsmamba2.errors import PluginError
from bsmamba2.models.scan import Sizes, bimamba2_scan_reference
from bsmamba2.plugins.cpu_library import CpuScanLibrary

LENGTHS = (1, 2, 3, 5, 62, 63, 64, 65, 129, 801)


@pytest.fixture(scope="module")
def library() -> CpuScan:
    return CpuScan()


@pytest.fixture(params=list(Isa)[1:], ids=lambda isa: isa.name.lower())
def isa(request: pytest.FixtureRequest, library: CpuScan) -> Isa:
    if not library.isa_name(request.param):
        pytest.skip(f"this CPU has no {request.param.name}")
    return request.param


def check(library: CpuScan, inputs: ScanInputs, isa: Isa, slack: float = 1) -> None:
    inputs = replace(inputs, **{name: value.float() for name, value in _tensors(inputs)})
    expected = bimamba2_scan_reference(*inputs.arguments, **inputs.attributes)
    assert_close(library.scan(inputs, isa=isa, threads=2), expected, "float32", slack)


def _tensors(inputs: ScanInputs) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in vars(inputs).items() if isinstance(value, Tensor)]


@pytest.mark.parametrize("length", LENGTHS)
def test_any_length_is_near_the_reference(library: CpuScan, isa: Isa, length: int):
    check(library, scan_inputs(2, length, head_sizes(3, 32, 48)), isa)


@pytest.mark.parametrize("length", [50, 100])
@pytest.mark.parametrize(
    "sizes",
    [ODD, ONE_HEAD, FULL, head_sizes(17, 16, 33), head_sizes(2, 72, 8), head_sizes(1, 1, 1)],
    ids=str,
)
def test_all_sizes_are_near_the_reference(library: CpuScan, isa: Isa, sizes: Sizes, length: int):
    check(library, scan_inputs(1, length, sizes, seed=length), isa)


@pytest.mark.parametrize("taps", [1, 2, 3, 5, 9])
def test_any_number_of_taps(library: CpuScan, isa: Isa, taps: int):
    check(library, scan_inputs(2, 70, head_sizes(2, 16, 16), taps=taps), isa)
    check(library, scan_inputs(1, 2, head_sizes(2, 16, 16), taps=taps), isa)


@pytest.mark.parametrize("length", [62, 200])
@pytest.mark.parametrize("kind", EXTREMES)
def test_extremes(library: CpuScan, isa: Isa, kind: str, length: int):
    inputs = extreme_inputs(kind, 1, length, head_sizes(2, 16, 16))
    # Sums of decays are double here: nothing is lost where they are large.
    check(library, inputs, isa, min(extreme_slack(kind, "float32"), 5))


def test_backward_scan_is_forward_scan_of_reversed_input(library: CpuScan):
    inputs = scan_inputs(2, 130, head_sizes(2, 16, 16))
    forward, backward = inputs.zxbcdt.split(inputs.sizes.width, dim=-1)
    swapped = replace(
        inputs,
        zxbcdt=torch.cat((backward, forward), dim=-1).flip(1),
        **{name: value.flip(0) for name, value in _tensors(inputs) if name != "zxbcdt"},
    )
    there = library.scan(inputs).split(inputs.sizes.d_inner, dim=-1)
    back = library.scan(swapped).flip(1).split(inputs.sizes.d_inner, dim=-1)
    assert torch.equal(torch.cat(there), torch.cat(back[::-1]))


@pytest.mark.parametrize("threads", [2, 3, 16, 0])
def test_threads_do_not_change_a_bit(library: CpuScan, threads: int):
    inputs = scan_inputs(5, 70, head_sizes(2, 16, 16))
    expected = library.scan(inputs, threads=1)
    assert torch.equal(library.scan(inputs, threads=threads), expected)


def test_calls_from_several_threads_do_not_touch_each_other(library: CpuScan):
    many = [scan_inputs(2, 65 + seed, head_sizes(2, 16, 16), seed=seed) for seed in range(6)]
    expected = [library.scan(inputs, threads=1) for inputs in many]
    with ThreadPoolExecutor(len(many)) as pool:
        found = list(pool.map(lambda inputs: library.scan(inputs, threads=2), 5 * many))
    assert all(map(torch.equal, found, 5 * expected))


def test_sequences_do_not_touch_each_other(library: CpuScan):
    inputs = scan_inputs(3, 90, head_sizes(2, 16, 16))
    inputs.zxbcdt[1] = torch.nan
    y = library.scan(inputs)
    assert torch.isnan(y[1]).all()
    for n in (0, 2):
        alone = library.scan(replace(inputs, zxbcdt=inputs.zxbcdt[n : n + 1]))
        assert torch.equal(y[n], alone[0])


@pytest.mark.parametrize("feature", ["z", "x", "B", "C", "dt"])
def test_a_nan_is_not_lost(library: CpuScan, isa: Isa, feature: str):
    inputs = scan_inputs(1, 100, head_sizes(2, 16, 16))
    sizes = inputs.sizes
    at = {
        "z": 0,
        "x": sizes.d_inner,
        "B": 2 * sizes.d_inner,
        "C": 2 * sizes.d_inner + sizes.d_state,
        "dt": sizes.width - 1,
    }[feature]
    inputs.zxbcdt[0, 70, at] = torch.nan
    y = library.scan(inputs, isa=isa)
    assert torch.isnan(y[0, 70]).any()
    assert torch.isfinite(y[0, :64, : sizes.d_inner]).all()  # forward, and another chunk


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"length": 0}, "a size is below 1"),
        ({"n_heads": -1}, "a size is below 1"),
        ({"n_sequences": 1 << 60}, "too large"),
        ({"eps": float("nan")}, "eps"),
        ({"eps": -1.0}, "eps"),
        ({"A": None}, "missing"),
        ({"size": 8}, "version"),
    ],
)
def test_impossible_calls_are_refused_and_nothing_is_written(
    library: CpuScan, change: dict[str, Any], sentence: str
):
    with pytest.raises(ValueError, match=sentence):
        library.scan(scan_inputs(1, 4, ODD), **change)


def test_best_is_the_widest_that_the_cpu_has(library: CpuScan):
    names = [library.isa_name(isa) for isa in list(Isa)[1:]]
    assert names[0] == "portable"
    assert library.isa_name() == [name for name in names if name][-1]
    if platform.machine() == "x86_64" and sys.platform == "linux":
        assert ("avx512" in names) == (" avx512f" in Path("/proc/cpuinfo").read_text())


def test_another_library_is_refused(tmp_path: Path):
    path = tmp_path / "library.so"
    path.write_bytes(b"no library")
    with pytest.raises(PluginError, match="install bsmamba2 again"):
        CpuScanLibrary(path)
