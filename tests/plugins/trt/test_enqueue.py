"""The plugin in plans and when enqueued, through IPluginV3, with the emulated scan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from layers import DTYPES, FOUR_HEADS, SHAPES, SIZES, attributes, one_message, specs
from plugin_host import Host, Plugin, Spec, operands, specs_of
from tolerances import assert_close
from torch import Tensor

from bench.common.scans import ScanInputs, scan_inputs
from bsmamba2.formats.operator import INPUTS
from bsmamba2.models.scan import ScanParameters, bimamba2_scan_reference
from bsmamba2.plugins.cuda_library import ScanLibrary, ScanSizes

# --- engines ---


def test_workspace_is_that_of_the_largest_shapes(plugin: Plugin, emulated_scan: Path):
    sizes = ScanSizes(n_sequences=3, length=5, n_heads=2, headdim=32, d_state=32)
    assert plugin.configure(specs()) == ScanLibrary(emulated_scan).workspace_bytes(sizes)


def test_plan_keeps_the_attributes(host: Host):
    plugin = host.create(attributes(n_heads=3, d_state=128, eps=0.25))
    assert plugin
    assert plugin.reload().metadata() == "n_heads=3,d_state=128,eps=0.25"


def test_copies_outlive_the_original(host: Host):
    plugin = host.create(attributes(d_state=64))
    assert plugin
    copies = (plugin.clone(), plugin.attach(), plugin.attach().clone(), plugin.reload())
    del plugin
    assert {copy.reload().metadata() for copy in copies} == {
        "n_heads=2,d_state=64,eps=9.99999975e-06"
    }


# --- enqueue ---


def run(plugin: Plugin, tensors: list[Tensor]) -> Tensor:
    """Runs the plugin in an engine built for these shapes; y is NaN where nothing was written."""
    given = specs_of(tensors, free=(0, 1))
    workspace_bytes = plugin.configure(given)
    assert workspace_bytes is not None
    assert plugin.shape_change(given)
    shape = [size for size, _ in plugin.output_shape(given) or []]
    y = torch.full(shape, torch.nan, dtype=tensors[0].dtype)
    workspace = torch.full((workspace_bytes,), 255, dtype=torch.uint8)
    assert plugin.enqueue(tensors, given, y, workspace)
    return y


def reference(inputs: ScanInputs, tensors: list[Tensor]) -> Tensor:
    """The reference for the rounded inputs."""
    zxbcdt, *rest = tensors
    return bimamba2_scan_reference(zxbcdt, ScanParameters(*rest), **inputs.attributes)


@pytest.fixture(params=["90", "80"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The emulated GPU: from 9.0 on, the norm takes no second step."""
    monkeypatch.setenv("BSM_EMULATED_COMPUTE", request.param)
    return str(request.param)


@pytest.mark.parametrize("length", [1, 65])
@pytest.mark.parametrize("dtype", DTYPES)
def test_enqueue_is_the_reference(host: Host, gpu: str, dtype: torch.dtype, length: int):
    inputs = scan_inputs(2, length, FOUR_HEADS, seed=length)
    tensors = operands(inputs, dtype)
    plugin = host.create(attributes(inputs.sizes.n_heads, inputs.sizes.d_state, inputs.eps))
    assert plugin
    y = run(plugin.reload().attach(), tensors)
    assert_close(y, reference(inputs, tensors), dtype, slack=2)


def test_eps_of_the_node_is_that_of_the_norm(host: Host):
    inputs = replace(scan_inputs(1, 3, SIZES), eps=10.0)
    plugin = host.create(attributes(eps=10.0))
    assert plugin
    tensors = operands(inputs, torch.float32)
    assert_close(run(plugin, tensors), reference(inputs, tensors), torch.float32, slack=2)


def test_smaller_shapes_than_those_built_for_run_in_its_workspace(host: Host, gpu: str):
    plugin = host.create(attributes(n_heads=FOUR_HEADS.n_heads))
    assert plugin
    largest = operands(scan_inputs(3, 66, FOUR_HEADS), torch.float32)
    workspace_bytes = plugin.configure(specs_of(largest, free=(0, 1)))
    assert workspace_bytes is not None
    guard = 64
    workspace = torch.full((workspace_bytes + guard,), 255, dtype=torch.uint8)
    for length in (65, 2):
        inputs = scan_inputs(1, length, FOUR_HEADS)
        tensors = operands(inputs, torch.float32)
        y = torch.full((1, length, 2 * FOUR_HEADS.d_inner), torch.nan)
        assert plugin.enqueue(tensors, specs_of(tensors), y, workspace)
        assert_close(y, reference(inputs, tensors), torch.float32, slack=2)
        assert (workspace[workspace_bytes:] == 255).all()


@pytest.mark.parametrize("empty", [(0, 5), (3, 0), (0, 0)])
def test_empty_inputs_are_no_error(plugin: Plugin, empty: tuple[int, int]):
    given = [Spec((*empty, SHAPES[0][2])), *specs()[1:]]
    assert plugin.configure(given) == 0
    assert plugin.shape_change(given)
    assert plugin.enqueue([None] * 6, given, None, None)


@pytest.mark.parametrize("missing", range(len(INPUTS) + 2))
def test_missing_array_is_refused(host: Host, plugin: Plugin, missing: int):
    """The missing array is an input, y or the workspace."""
    memory = torch.zeros(plugin.configure(specs()) or 0, dtype=torch.uint8)
    tensors = operands(scan_inputs(3, 5, SIZES), torch.float32)
    arrays: list[Tensor | None] = [*tensors, torch.zeros(3, 5, 128), memory]
    arrays[missing] = None
    *inputs, y, workspace = arrays
    assert not plugin.enqueue(inputs, specs(), y, workspace)
    assert one_message(host).startswith("not run: ")


# --- GPUs ---


def test_workspace_is_the_same_whatever_gpu_builds(plugin: Plugin, monkeypatch: pytest.MonkeyPatch):
    sizes = set()
    for compute in ("90", "80", "0"):  # 0: there is no GPU
        monkeypatch.setenv("BSM_EMULATED_COMPUTE", compute)
        sizes.add(plugin.configure(specs()))
    assert len(sizes) == 1
    assert sizes.pop()


@pytest.mark.parametrize(
    ("compute", "sentence"),
    [
        ("75", "not run: the GPU is too old: compute capability 8.0 or newer is needed"),
        ("0", "not run: there is no CUDA device"),
    ],
)
def test_gpu_that_cannot_run_it_is_an_error(
    host: Host, plugin: Plugin, compute: str, sentence: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BSM_EMULATED_COMPUTE", compute)
    tensors = operands(scan_inputs(1, 2, SIZES), torch.float32)
    workspace = torch.zeros(1 << 16, dtype=torch.uint8)
    assert not plugin.enqueue(tensors, specs_of(tensors), torch.zeros(1, 2, 128), workspace)
    assert one_message(host) == sentence
