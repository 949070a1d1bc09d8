"""Laws of the scan on a GPU: the library's result, or the chunked form and one line in the log.

Here the kernel's source runs in the emulation, on CPU tensors; the last tests run the real one
where there is a GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from networks import random_network, random_spectrum
from tolerances import assert_close, extreme_slack
from torch import Tensor

from bench.common.scans import EXTREMES, FULL, ScanInputs, extreme_inputs, head_sizes, scan_inputs
from bsmamba2.errors import PluginError, warn_once
from bsmamba2.models import cuda_scan as module
from bsmamba2.models import folded
from bsmamba2.models.cuda_scan import LIBRARY_VARIABLE, cuda_scan, library_scan, scan_library
from bsmamba2.models.scan import (
    ScanParameters,
    Sizes,
    bimamba2_scan_chunked,
    bimamba2_scan_reference,
)
from bsmamba2.models.scan_operator import SCAN_OPERATOR, bimamba2_scan
from bsmamba2.plugins import build
from bsmamba2.plugins.cuda_library import ScanError, ScanLibrary, ScanSizes, Status

SMALL = head_sizes(2, 32, 32)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])


@pytest.fixture(scope="module")
def library(emulated_scan: Path) -> ScanLibrary:
    return ScanLibrary(emulated_scan)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Starts every test without a named or cached library and without logged lines."""
    caches = (module._load, module._cached_library, warn_once)
    monkeypatch.delenv(LIBRARY_VARIABLE, raising=False)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def named(emulated_scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names the emulated library."""
    monkeypatch.setenv(LIBRARY_VARIABLE, str(emulated_scan))


def typed(inputs: ScanInputs, dtype: torch.dtype) -> ScanInputs:
    """Converts inputs like the folded network: the convolution's weights have the signal's type."""
    inputs = inputs.to(dtype)
    return replace(
        inputs,
        conv_weight=inputs.conv_weight.to(dtype),
        conv_bias=inputs.conv_bias.to(dtype),
    )


def reference(inputs: ScanInputs) -> Tensor:
    return bimamba2_scan_reference(*inputs.arguments, **inputs.attributes)


def by_library(library: ScanLibrary, inputs: ScanInputs, out: Tensor | None = None) -> Tensor:
    return library_scan(library, *inputs.arguments, **inputs.attributes, out=out)


# --- the library's result ---


@DTYPES
@pytest.mark.parametrize("L", [1, 62, 65, 130])
def test_library_is_the_reference(library: ScanLibrary, L: int, dtype: torch.dtype):
    inputs = typed(scan_inputs(2, L, SMALL), dtype)
    y = by_library(library, inputs)
    assert y.dtype == dtype
    assert_close(y, reference(inputs), dtype)


@DTYPES
def test_weights_of_any_type_are_rounded_to_the_signals(library: ScanLibrary, dtype: torch.dtype):
    inputs = scan_inputs(1, 5, SMALL)
    double = replace(inputs, zxbcdt=inputs.zxbcdt.to(dtype))
    expected = by_library(library, typed(inputs, dtype))
    assert torch.equal(by_library(library, double), expected)


@DTYPES
def test_strides_do_not_matter(library: ScanLibrary, dtype: torch.dtype):
    inputs = typed(scan_inputs(3, 5, SMALL), dtype)
    strided = replace(
        inputs,
        zxbcdt=inputs.zxbcdt.transpose(0, 2).contiguous().transpose(0, 2),
        conv_weight=inputs.conv_weight.mT.contiguous().mT,
        A=inputs.A.repeat_interleave(2, dim=1)[:, ::2],
    )
    assert not strided.zxbcdt.is_contiguous()
    assert torch.equal(by_library(library, strided), by_library(library, inputs))


def test_inputs_may_be_views_into_larger_ones(library: ScanLibrary):
    inputs = typed(scan_inputs(2, 5, SMALL), torch.float16)

    def shifted(tensor: Tensor) -> Tensor:
        memory = torch.zeros(tensor.numel() + 1, dtype=tensor.dtype)
        return memory[1:].view_as(tensor).copy_(tensor)

    views = ScanInputs(*map(shifted, inputs.tensors), SMALL)
    assert all(tensor.data_ptr() % 16 for tensor in views.tensors)
    assert torch.equal(by_library(library, views), by_library(library, inputs))


def test_inputs_are_left_alone_and_the_output_is_new(library: ScanLibrary):
    inputs = typed(scan_inputs(2, 5, SMALL), torch.float32)
    before = [tensor.clone() for tensor in inputs.tensors]
    by_library(library, inputs).zero_()
    assert all(torch.equal(a, b) for a, b in zip(inputs.tensors, before, strict=True))


def test_a_given_output_is_written_everywhere(library: ScanLibrary):
    inputs = typed(scan_inputs(2, 65, SMALL), torch.float16)
    expected = by_library(library, inputs)
    out = torch.full_like(expected, torch.nan)
    assert by_library(library, inputs, out) is out
    assert torch.equal(out, expected)


def test_no_sequences_give_none(library: ScanLibrary):
    inputs = typed(scan_inputs(2, 5, SMALL), torch.float16)
    y = by_library(library, replace(inputs, zxbcdt=inputs.zxbcdt[:0]))
    assert y.shape == (0, 5, 2 * SMALL.d_inner)


def test_inputs_on_several_devices_are_refused(library: ScanLibrary):
    inputs = typed(scan_inputs(1, 2, SMALL), torch.float32)
    with pytest.raises(ValueError, match="A is on meta and zxbcdt on cpu"):
        by_library(library, replace(inputs, A=inputs.A.to("meta")))


# --- the choice ---


def chosen(inputs: ScanInputs) -> Tensor:
    return cuda_scan(*inputs.arguments, **inputs.attributes)


def chunked(inputs: ScanInputs) -> Tensor:
    return bimamba2_scan_chunked(*inputs.arguments, **inputs.attributes)


@pytest.mark.usefixtures("named")
@DTYPES
def test_a_named_library_is_taken(library: ScanLibrary, dtype: torch.dtype):
    inputs = typed(scan_inputs(2, 65, SMALL), dtype)
    assert torch.equal(chosen(inputs), by_library(library, inputs))


def test_the_cached_library_is_taken(
    emulated_scan: Path, library: ScanLibrary, monkeypatch: pytest.MonkeyPatch
):
    cached = SimpleNamespace(scan=emulated_scan)
    monkeypatch.setattr(build, "find_libraries", lambda: cached)
    inputs = typed(scan_inputs(1, 3, SMALL), torch.float16)
    assert torch.equal(chosen(inputs), by_library(library, inputs))


def test_without_a_library_the_chunked_form_scans_and_one_line_names_the_command(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(build, "find_libraries", lambda: None)
    inputs = typed(scan_inputs(1, 3, SMALL), torch.float16)
    for _ in range(3):
        assert torch.equal(chosen(inputs), chunked(inputs))
    assert len(caplog.records) == 1
    assert "bsm plugin build" in caplog.text


@pytest.mark.usefixtures("named")
def test_unsupported_sizes_take_the_chunked_form_with_a_line_each(
    caplog: pytest.LogCaptureFixture,
):
    for sizes in (head_sizes(2, 16, 32), head_sizes(2, 32, 16), head_sizes(2, 16, 32)):
        inputs = scan_inputs(1, 3, sizes).to(torch.float32)
        assert torch.equal(chosen(inputs), chunked(inputs))
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "headdim 16" in caplog.records[0].message


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize(
    "status", [Status.OLD_GPU, Status.NO_KERNEL, Status.OLD_DRIVER, Status.CUDA_ERROR]
)
def test_a_gpu_that_cannot_takes_the_chunked_form_and_an_error_of_cuda_is_raised(
    status: Status, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(self: ScanLibrary, sizes: ScanSizes) -> int:
        raise ScanError("Scan: it failed.", status)

    monkeypatch.setattr(ScanLibrary, "workspace_bytes", fail)
    inputs = scan_inputs(1, 3, SMALL).to(torch.float32)
    if status == Status.CUDA_ERROR:
        with pytest.raises(PluginError, match="it failed"):
            chosen(inputs)
    else:
        assert torch.equal(chosen(inputs), chunked(inputs))
        assert "it failed" in caplog.text


@pytest.mark.usefixtures("named")
def test_float64_is_the_chunked_forms_without_a_line(caplog: pytest.LogCaptureFixture):
    inputs = scan_inputs(1, 65, SMALL)
    assert torch.equal(chosen(inputs), chunked(inputs))
    assert not caplog.records


def test_a_named_library_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(LIBRARY_VARIABLE, "absent.so")
    with pytest.raises(PluginError, match=r"absent\.so"):
        scan_library()


# --- the network ---


@pytest.mark.usefixtures("named")
@DTYPES
def test_folded_network_by_the_library_is_near_float64(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    network, spectrum = random_network(), random_spectrum(1, 5)
    with torch.no_grad():
        expected = network(spectrum)
        monkeypatch.setattr(folded, "bimamba2_scan", cuda_scan)
        mask = folded.fold(network, dtype)(spectrum.float())
    assert not caplog.records, "it was not the library's"
    assert_close(mask, expected, dtype, slack=3)  # two layers, one after the other


# --- the real kernel ---


def cuda_arguments(inputs: ScanInputs) -> tuple[Tensor, ScanParameters]:
    zxbcdt, parameters = inputs.arguments
    return zxbcdt.cuda(), ScanParameters(*(tensor.cuda() for tensor in parameters))


def on_gpu(inputs: ScanInputs) -> Tensor:
    return bimamba2_scan(*cuda_arguments(inputs), **inputs.attributes).cpu()


@pytest.fixture
def real_library() -> ScanLibrary:
    library = scan_library()
    assert library is not None, "run 'bsm plugin build' first"
    return library


@pytest.mark.gpu
@pytest.mark.usefixtures("real_library")
@DTYPES
@pytest.mark.parametrize("L", [1, 2, 63, 64, 65, 129, 801, 1134])
@pytest.mark.parametrize(
    "sizes", [SMALL, FULL, head_sizes(3, 64, 64)], ids=["small", "full", "odd"]
)
def test_kernel_is_the_reference(L: int, sizes: Sizes, dtype: torch.dtype):
    inputs = typed(scan_inputs(3, L, sizes), dtype)
    assert_close(on_gpu(inputs), reference(inputs), dtype)


@pytest.mark.gpu
@pytest.mark.usefixtures("real_library")
@DTYPES
@pytest.mark.parametrize("L", [62, 130])
@pytest.mark.parametrize("kind", EXTREMES)
def test_kernel_is_the_reference_on_extremes(kind: str, L: int, dtype: torch.dtype):
    inputs = typed(extreme_inputs(kind, 2, L, SMALL), dtype)
    assert_close(on_gpu(inputs), reference(inputs), dtype, extreme_slack(kind, dtype))


@pytest.mark.gpu
def test_kernel_keeps_the_operators_promises(real_library: ScanLibrary):
    inputs = typed(scan_inputs(2, 65, SMALL), torch.float16)
    arguments = (*(t.cuda() for t in inputs.tensors), *inputs.attributes.values())
    torch.library.opcheck(SCAN_OPERATOR, arguments)


@pytest.mark.gpu
def test_kernel_runs_in_a_graph_on_a_side_stream(real_library: ScanLibrary):
    inputs = typed(scan_inputs(2, 130, SMALL), torch.float16)
    arguments, attributes = cuda_arguments(inputs), inputs.attributes
    expected = library_scan(real_library, *arguments, **attributes)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = library_scan(real_library, *arguments, **attributes)
    y.zero_()
    graph.replay()
    assert torch.equal(y, expected)
