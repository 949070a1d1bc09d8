"""Laws of the CUDA kernels: their real source, run by the GPU that `cuda_on_host` emulates."""

from __future__ import annotations

import math
import mmap
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tolerances import assert_close, extreme_slack, relative_rms
from torch import Tensor

from bench.common.scans import EXTREMES, ScanInputs, extreme_inputs, head_sizes, scan_inputs
from bsmamba2.models.cuda_scan import library_scan
from bsmamba2.models.scan import bimamba2_scan_reference
from bsmamba2.plugins.cuda_library import ScanLibrary

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LENGTHS = (1, 2, 63, 64, 65, 129, 200)
THREE_HEADS = head_sizes(3, 64, 128)  # an odd row of features: no two are aligned alike
EIGHT_HEADS = head_sizes(8, 32, 32)  # rows of whole units of 16 bytes, in every type


@pytest.fixture(scope="module")
def library(emulated_scan: Path) -> ScanLibrary:
    return ScanLibrary(emulated_scan)


@pytest.fixture(params=["80", "90"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A GPU without clusters and with little shared memory, and one with clusters."""
    monkeypatch.setenv("BSM_EMULATED_COMPUTE", request.param)
    monkeypatch.setenv("BSM_EMULATED_SHARED", "99" if request.param == "80" else "227")
    return str(request.param)


def rounded(inputs: ScanInputs, dtype: torch.dtype) -> ScanInputs:
    """Converts the inputs to the types that the kernel takes."""
    inputs = inputs.to(dtype)
    return replace(
        inputs, conv_weight=inputs.conv_weight.to(dtype), conv_bias=inputs.conv_bias.to(dtype)
    )


def scan(library: ScanLibrary, inputs: ScanInputs, **more: Any) -> Tensor:
    return library_scan(library, *inputs.arguments, **inputs.attributes, **more)


def reference(inputs: ScanInputs) -> Tensor:
    return bimamba2_scan_reference(*inputs.arguments, **inputs.attributes)


def check(library: ScanLibrary, inputs: ScanInputs, dtype: torch.dtype, slack: float = 1) -> None:
    inputs = rounded(inputs, dtype)
    assert_close(scan(library, inputs), reference(inputs), dtype, slack)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.usefixtures("gpu")
def test_any_length_is_near_the_reference(library: ScanLibrary, dtype: torch.dtype, length: int):
    check(library, scan_inputs(1 if length > 200 else 2, length, THREE_HEADS), dtype)


@pytest.mark.parametrize("length", [50, 100])
@pytest.mark.parametrize("d_state", [32, 64, 128])
@pytest.mark.parametrize("headdim", [32, 64])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_sizes_are_near_the_reference(
    library: ScanLibrary, dtype: torch.dtype, headdim: int, d_state: int, length: int
):
    check(library, scan_inputs(1, length, head_sizes(8, headdim, d_state), seed=d_state), dtype)


@pytest.mark.parametrize("length", [40, 70])
@pytest.mark.parametrize("heads", [1, 2, 5, 8, 16, 17, 64])
@pytest.mark.usefixtures("gpu")
def test_any_number_of_heads_is_near_the_reference(library: ScanLibrary, heads: int, length: int):
    """The heads cover each form of the norm: one block, clusters of 2, 4 and 8, two steps."""
    inputs = scan_inputs(1, length, head_sizes(heads, 32, 32), seed=heads)
    check(library, inputs, torch.float16)


@pytest.mark.parametrize("length", [62, 200])
@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_extremes_are_near_the_reference(
    library: ScanLibrary, dtype: torch.dtype, kind: str, length: int
):
    slack = 1 if dtype == torch.float32 else extreme_slack(kind, dtype)
    check(library, extreme_inputs(kind, 1, length, head_sizes(2, 64, 128)), dtype, slack)


@pytest.mark.parametrize(("sequences", "length"), [(1, 801), (3, 62)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.slow
def test_published_sizes_are_near_the_reference(
    library: ScanLibrary, dtype: torch.dtype, sequences: int, length: int
):
    inputs = rounded(scan_inputs(sequences, length, head_sizes(16, 64, 128)), dtype)
    target = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    assert relative_rms(scan(library, inputs), reference(inputs)) < target


@pytest.mark.parametrize("length", [30, 150])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_closed_gates_give_exact_zeros(library: ScanLibrary, dtype: torch.dtype, length: int):
    inputs = scan_inputs(1, length, THREE_HEADS)
    zxbcdt = inputs.zxbcdt.clone()
    for direction in zxbcdt.split(THREE_HEADS.width, dim=-1):
        direction[..., : THREE_HEADS.d_inner] = 0
    y = scan(library, rounded(replace(inputs, zxbcdt=zxbcdt), dtype))
    assert (y == 0).all()


@pytest.mark.parametrize("length", [62, 130])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_backward_scan_is_forward_scan_of_reversed_input(
    library: ScanLibrary, dtype: torch.dtype, length: int
):
    inputs = rounded(scan_inputs(2, length, THREE_HEADS), dtype)
    turned = ScanInputs(
        torch.cat(inputs.zxbcdt.flip(1).split(THREE_HEADS.width, -1)[::-1], -1),
        *(tensor.flip(0) for tensor in inputs.tensors[1:]),
        THREE_HEADS,
    )
    y = scan(library, turned).flip(1)
    assert torch.equal(torch.cat(y.split(THREE_HEADS.d_inner, -1)[::-1], -1), scan(library, inputs))


@pytest.mark.parametrize("length", [62, 130])
@pytest.mark.usefixtures("gpu")
def test_sequences_do_not_touch_each_other(library: ScanLibrary, length: int):
    inputs = rounded(scan_inputs(3, length, THREE_HEADS), torch.float16)
    alone = replace(inputs, zxbcdt=inputs.zxbcdt[1:2].contiguous())
    assert torch.equal(scan(library, inputs)[1:2], scan(library, alone))


@pytest.mark.parametrize("length", [62, 130])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_shows_from_its_step_on(library: ScanLibrary, dtype: torch.dtype, length: int):
    inputs = rounded(scan_inputs(2, length, THREE_HEADS), dtype)
    inputs.zxbcdt[0, length // 2, : THREE_HEADS.width] = math.nan
    forward, backward = scan(library, inputs).split(THREE_HEADS.d_inner, -1)
    assert forward[0, length // 2 :].isnan().all()
    assert backward[0].isfinite().all()
    assert forward[1].isfinite().all()


def test_float16_saturates(library: ScanLibrary):
    """Intermediate values beyond 65504 become neither an infinity nor the NaN that would follow."""
    inputs = scan_inputs(1, 200, head_sizes(2, 64, 128))
    inputs = replace(inputs, zxbcdt=inputs.zxbcdt.clamp(-2, 2) * 2000, A=inputs.A * 1e-4)
    assert scan(library, rounded(inputs, torch.float16)).isfinite().all()


@pytest.mark.parametrize("length", [62, 130])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_alignment_of_the_features_does_not_matter(
    library: ScanLibrary, dtype: torch.dtype, length: int
):
    inputs = rounded(scan_inputs(1, length, EIGHT_HEADS), dtype)
    memory = torch.empty(inputs.zxbcdt.numel() + 1, dtype=dtype)
    shifted = memory[1:].view(inputs.zxbcdt.shape).copy_(inputs.zxbcdt)
    assert torch.equal(scan(library, replace(inputs, zxbcdt=shifted)), scan(library, inputs))


@pytest.mark.parametrize("length", [1, 62, 65, 130])
@pytest.mark.usefixtures("gpu")
def test_nothing_is_written_around_the_outputs(library: ScanLibrary, length: int):
    inputs = rounded(scan_inputs(1, length, THREE_HEADS), torch.float16)
    size = length * 2 * THREE_HEADS.d_inner
    memory = torch.full((size + 256,), math.nan, dtype=torch.float16)
    out = memory[128 : 128 + size].view(1, length, -1)
    scan(library, inputs, out=out)
    assert out.isfinite().all()
    assert memory[:128].isnan().all()
    assert memory[128 + size :].isnan().all()


@pytest.mark.parametrize("length", [62, 130])
def test_a_gpu_too_small_for_clusters_norms_as_one_without(
    library: ScanLibrary, monkeypatch: pytest.MonkeyPatch, length: int
):
    inputs = rounded(scan_inputs(1, length, head_sizes(16, 32, 32)), torch.float16)
    monkeypatch.setenv("BSM_EMULATED_CLUSTER", "1")
    y = scan(library, inputs)
    monkeypatch.setenv("BSM_EMULATED_COMPUTE", "80")
    assert torch.equal(scan(library, inputs), y)


@pytest.mark.parametrize("length", [62, 130])
def test_copies_arrive_only_when_waited_for(
    library: ScanLibrary, monkeypatch: pytest.MonkeyPatch, length: int
):
    inputs = rounded(scan_inputs(1, length, EIGHT_HEADS), torch.float16)
    monkeypatch.setenv("BSM_SKIP_WAITS", "1")
    assert scan(library, inputs).isnan().all()


@pytest.mark.parametrize("length", [10, 70])
@pytest.mark.usefixtures("gpu")
def test_a_small_grid_takes_several_launches(
    library: ScanLibrary, monkeypatch: pytest.MonkeyPatch, length: int
):
    inputs = rounded(scan_inputs(7, length, head_sizes(5, 32, 32)), torch.float16)
    expected = scan(library, inputs)
    monkeypatch.setenv("BSM_EMULATED_BLOCKS", "24")
    assert torch.equal(scan(library, inputs), expected)


def test_threads_may_scan_at_once(library: ScanLibrary):
    jobs = [rounded(scan_inputs(1, n, THREE_HEADS, seed=n), torch.float16) for n in (60, 70, 80)]
    expected = [scan(library, job) for job in jobs]
    found: dict[int, Tensor] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: scan(library, jobs[i])}))
        for i in range(len(jobs))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], y) for i, y in enumerate(expected))


@pytest.mark.parametrize("length", [1, 66])
def test_arrays_may_have_more_elements_than_32_bits_count(
    library: ScanLibrary, monkeypatch: pytest.MonkeyPatch, length: int
):
    """Only the last sequence is computed; the rest is address space."""
    sizes = head_sizes(1, 32, 32)
    sequences = -(-(1 << 32) // (2 * sizes.width * length)) + 1
    alone = rounded(scan_inputs(1, length, sizes), torch.float16)
    count = sequences * length * 2 * sizes.width
    assert count > 1 << 32
    zxbcdt = _address_space(count).view(sequences, length, -1)
    zxbcdt[-1] = alone.zxbcdt[0]
    out = _address_space(sequences * length * 2 * sizes.d_inner).view(sequences, length, -1)
    monkeypatch.setenv("BSM_FIRST_BLOCK", str(2 * (sequences - 1)))  # a block a direction
    scan(library, replace(alone, zxbcdt=zxbcdt), out=out)
    monkeypatch.delenv("BSM_FIRST_BLOCK")
    assert torch.equal(out[-1:], scan(library, alone))


def _address_space(elements: int) -> Tensor:
    """Float16 zeros that take no memory until they are written."""
    return torch.frombuffer(mmap.mmap(-1, 2 * elements), dtype=torch.float16)
