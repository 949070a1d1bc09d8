"""The plugin driven through its IPluginV3 interface, its enqueue by the emulated scan."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from native import compile_host
from plugin_host import (
    CHAR,
    CHW4,
    FLOAT32,
    INPUTS,
    INT32,
    INT64,
    Host,
    Plugin,
    Spec,
    operands,
    specs_of,
)
from scans import HeadSizes, ScanInputs, scan_inputs
from tolerances import assert_close
from torch import Tensor

from bsmamba2.export.scan_function import (
    ATTRIBUTES,
    OP_TYPE,
    PLUGIN_NAMESPACE,
    PLUGIN_VERSION,
)
from bsmamba2.models.scan import bimamba2_scan_reference
from bsmamba2.plugins.library import ScanLibrary, ScanSizes

SIZES = HeadSizes(heads=2, headdim=32, d_state=32)
SHAPES = ((3, 5, 2 * 2 * 97), (2, 128, 4), (2, 128), (2, 2), (2, 2), (2, 2))
assert SHAPES[0][2] == 2 * SIZES.width
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
Attributes = dict[str, tuple[int, bytes]]


def attributes(n_heads: int = 2, d_state: int = 32, eps: float = 1e-5) -> Attributes:
    return {
        "n_heads": (INT32, struct.pack("i", n_heads)),
        "d_state": (INT32, struct.pack("i", d_state)),
        "eps": (FLOAT32, struct.pack("f", eps)),
    }


def specs(dtype: torch.dtype = torch.float32) -> list[Spec]:
    """Inputs that fit, N and L free."""
    signal = [Spec(shape, dtype) for shape in SHAPES[:3]]
    signal[0] = replace(signal[0], free=(0, 1))
    return signal + [Spec(shape) for shape in SHAPES[3:]]


@pytest.fixture(scope="module")
def loaded(plugin_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    return Host(compile_host(tmp_path_factory.mktemp("host") / "libhost.so"), plugin_library)


@pytest.fixture
def host(loaded: Host) -> Iterator[Host]:
    """Everything that is logged must have been asked for by the test."""
    loaded.messages()
    yield loaded
    assert loaded.messages() == ""


@pytest.fixture
def plugin(host: Host) -> Plugin:
    plugin = host.create(attributes())
    assert plugin
    return plugin


def one_message(host: Host) -> str:
    """The sentence of a refusal, without the operator's name."""
    name, _, sentence = host.messages().partition(": ")
    assert name == "bsm::BiMamba2Scan"
    assert sentence.endswith("\n")
    assert sentence.count("\n") == 1
    return sentence.rstrip()


# --- creator ---


def test_creator_is_the_one_that_exported_nodes_name(host: Host):
    assert host.identity() == (OP_TYPE, PLUGIN_VERSION, PLUGIN_NAMESPACE)


def test_creator_asks_for_every_attribute_of_the_operator(host: Host):
    named = {"plugin_namespace", "plugin_version"}  # the parser reads these itself
    assert host.field_names() == [name for name in ATTRIBUTES if name not in named]


def test_other_attributes_are_ignored(host: Host):
    assert host.create(attributes() | {"plugin_version": (CHAR, b"1\0"), "more": (INT32, b"")})


@pytest.mark.parametrize("name", ["n_heads", "d_state", "eps"])
def test_missing_attribute_is_named(host: Host, name: str):
    assert host.create({k: v for k, v in attributes().items() if k != name}) is None
    assert one_message(host) == f"attribute {name} is missing"
    assert host.create(attributes() | {name: (INT32, b"")}) is None
    assert one_message(host) == f"attribute {name} is missing"


def test_no_attributes_at_all_are_refused(host: Host):
    assert host.create_without_fields() is None
    assert one_message(host) == "attribute n_heads is missing"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("n_heads", 0, "attribute n_heads must be 1 to 64, not 0"),
        ("n_heads", 65, "attribute n_heads must be 1 to 64, not 65"),
        ("n_heads", -(1 << 31), "attribute n_heads must be 1 to 64, not -2147483648"),
        ("d_state", 48, "attribute d_state must be 32, 64 or 128, not 48"),
        ("d_state", 256, "attribute d_state must be 32, 64 or 128, not 256"),
        ("eps", -1.0, "attribute eps must be a finite number of at least 0, not -1"),
        ("eps", float("nan"), "attribute eps must be a finite number of at least 0, not nan"),
        ("eps", float("inf"), "attribute eps must be a finite number of at least 0, not inf"),
    ],
)
def test_attribute_out_of_range_is_refused(host: Host, name: str, value: float, sentence: str):
    assert host.create(attributes(**{name: value})) is None
    assert one_message(host) == sentence


@pytest.mark.parametrize(
    ("name", "field", "wanted"),
    [
        ("n_heads", (INT64, struct.pack("q", 2)), "int32"),
        ("d_state", (FLOAT32, struct.pack("f", 32)), "int32"),
        ("eps", (CHAR, b"1e-5\0"), "float32"),
    ],
)
def test_attribute_of_another_type_is_refused(
    host: Host, name: str, field: tuple[int, bytes], wanted: str
):
    assert host.create(attributes() | {name: field}) is None
    assert one_message(host) == f"attribute {name} must be one {wanted}"


# --- shapes, types and formats ---


def test_y_is_as_long_as_zxbcdt_and_twice_as_wide_as_d_inner(plugin: Plugin):
    assert plugin.output_shape(specs()) == [(3, False), (5, False), (2 * 64, True)]


def test_width_of_y_follows_a_width_that_is_not_fixed(plugin: Plugin):
    free = [replace(spec, free=tuple(range(len(spec.shape)))) for spec in specs()]
    assert plugin.output_shape(free) == [(3, False), (5, False), (2 * 64, False)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_y_has_the_type_of_zxbcdt(plugin: Plugin, dtype: torch.dtype):
    assert plugin.output_type([spec.dtype for spec in specs(dtype)]) == dtype


@pytest.mark.parametrize(
    ("name", "dtype", "sentence"),
    [
        ("zxbcdt", torch.int32, "zxbcdt must be float32, float16 or bfloat16, not int32"),
        ("conv_weight", torch.float32, "conv_weight must be float16 as zxbcdt is, not float32"),
        ("conv_bias", torch.bfloat16, "conv_bias must be float16 as zxbcdt is, not bfloat16"),
        ("dt_bias", torch.float16, "dt_bias must be float32, not float16"),
        ("A", torch.float16, "A must be float32, not float16"),
        ("D", torch.int8, "D must be float32, not int8"),
    ],
)
def test_type_that_does_not_fit_is_named(
    host: Host, plugin: Plugin, name: str, dtype: torch.dtype, sentence: str
):
    given = specs(torch.float16)
    given[INPUTS.index(name)] = replace(given[INPUTS.index(name)], dtype=dtype)
    assert plugin.output_type([spec.dtype for spec in given]) is None
    assert one_message(host) == sentence
    assert_refused_later(host, plugin, given, sentence)


@pytest.mark.parametrize("dtype", DTYPES)
def test_formats_are_linear_and_types_follow_zxbcdt(plugin: Plugin, dtype: torch.dtype):
    tensors = [*specs(dtype), Spec((3, 5, 128), dtype)]
    for position, tensor in enumerate(tensors):
        assert not plugin.supports(position, tensors, format=CHW4)
        for other in (*DTYPES, torch.int8, torch.int32):
            changed = [*tensors]
            changed[position] = replace(tensor, dtype=other)
            allowed = DTYPES if position == 0 else (tensor.dtype,)
            assert plugin.supports(position, changed) == (other in allowed)


def assert_refused_later(host: Host, plugin: Plugin, given: Sequence[Spec], sentence: str) -> None:
    """When an engine is configured, when shapes change and when it runs."""
    plugin.configure(given)
    assert set(host.messages().splitlines()) == {f"bsm::BiMamba2Scan: {sentence}"}
    assert not plugin.shape_change(given)
    assert one_message(host) == sentence
    assert not plugin.enqueue([None] * 6, given, None, None)
    assert one_message(host) == sentence


FOR_ZXBCDT = "for zxbcdt (3, 5, 388) with n_heads = 2 and d_state = 32, not"


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        ("zxbcdt", (5, 388), "zxbcdt must be (N, L, 2 W), not (5, 388)"),
        ("zxbcdt", (1, 3, 5, 388), "zxbcdt must be (N, L, 2 W), not (1, 3, 5, 388)"),
        (
            "zxbcdt",
            (3, 5, 390),
            "zxbcdt (3, 5, 390) has 390 features, which is not 2 * (2 d_inner + 2 * 32 + 2) for "
            "a d_inner that n_heads = 2 divides",
        ),
        (
            "zxbcdt",
            (3, 5, 132),
            "zxbcdt (3, 5, 132) has 132 features, which is not 2 * (2 d_inner + 2 * 32 + 2) for "
            "a d_inner that n_heads = 2 divides",
        ),
        (
            "zxbcdt",
            (3, 5, 516),
            "zxbcdt (3, 5, 516) has heads of 48 channels for n_heads = 2 and d_state = 32: the "
            "kernel takes 32 or 64",
        ),
        ("conv_weight", (2, 128), f"conv_weight must be (2, 128, 4) {FOR_ZXBCDT} (2, 128)"),
        ("conv_weight", (2, 128, 3), f"conv_weight must be (2, 128, 4) {FOR_ZXBCDT} (2, 128, 3)"),
        ("conv_weight", (1, 128, 4), f"conv_weight must be (2, 128, 4) {FOR_ZXBCDT} (1, 128, 4)"),
        ("conv_bias", (256,), f"conv_bias must be (2, 128) {FOR_ZXBCDT} (256,)"),
        ("dt_bias", (), f"dt_bias must be (2, 2) {FOR_ZXBCDT} ()"),
        ("A", (2, 4), f"A must be (2, 2) {FOR_ZXBCDT} (2, 4)"),
        ("D", (2, 2, 1), f"D must be (2, 2) {FOR_ZXBCDT} (2, 2, 1)"),
    ],
)
def test_shape_that_does_not_fit_is_named_with_both_shapes(
    host: Host, plugin: Plugin, name: str, shape: tuple[int, ...], sentence: str
):
    given = [replace(spec, free=()) for spec in specs()]
    given[INPUTS.index(name)] = Spec(shape)
    assert plugin.output_shape(given) is None
    assert one_message(host) == sentence
    assert_refused_later(host, plugin, given, sentence)


def test_sizes_that_are_not_fixed_are_question_marks(host: Host, plugin: Plugin):
    given = specs()
    given[3] = Spec((2, 3))
    assert plugin.output_shape(given) is None
    assert "for zxbcdt (?, ?, 388)" in one_message(host)


def test_wrong_number_of_inputs_is_refused(host: Host, plugin: Plugin):
    sentence = (
        "it takes 6 inputs (zxbcdt, conv_weight, conv_bias, dt_bias, A, D) and has one output, "
        "not 5 and 1"
    )
    five = specs()[:5]
    assert plugin.output_type([spec.dtype for spec in five]) is None
    assert one_message(host) == sentence
    assert plugin.output_shape(five) is None
    assert one_message(host) == sentence
    assert not plugin.supports(0, [*five, five[0]])
    assert one_message(host) == sentence
    assert not plugin.shape_change(five)
    assert one_message(host) == sentence
    assert plugin.configure(five) is None
    assert set(host.messages().splitlines()) == {f"bsm::BiMamba2Scan: {sentence}"}


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
    """y, as an engine would get it whose largest shapes are these; NaN where nothing wrote."""
    given = specs_of(tensors, free=(0, 1))
    workspace_bytes = plugin.configure(given)
    assert workspace_bytes is not None
    assert plugin.shape_change(given)
    shape = [size for size, _ in plugin.output_shape(given) or []]
    y = torch.full(shape, torch.nan, dtype=tensors[0].dtype)
    workspace = torch.full((workspace_bytes,), 255, dtype=torch.uint8) if workspace_bytes else None
    assert plugin.enqueue(tensors, given, y, workspace)
    return y


def reference(inputs: ScanInputs, tensors: list[Tensor]) -> Tensor:
    """Of the rounded inputs."""
    return bimamba2_scan_reference(*tensors, **inputs.attributes)


@pytest.mark.parametrize("length", [1, 65])
@pytest.mark.parametrize("dtype", DTYPES)
def test_enqueue_is_the_reference(host: Host, dtype: torch.dtype, length: int):
    inputs = scan_inputs(2, length, SIZES, seed=length)
    tensors = operands(inputs, dtype)
    plugin = host.create(attributes(inputs.sizes.heads, inputs.sizes.d_state, inputs.eps))
    assert plugin
    y = run(plugin.reload().attach(), tensors)
    assert_close(y, reference(inputs, tensors), dtype, slack=2)


def test_eps_of_the_node_is_that_of_the_norm(host: Host):
    inputs = replace(scan_inputs(1, 3, SIZES), eps=10.0)
    plugin = host.create(attributes(eps=10.0))
    assert plugin
    tensors = operands(inputs, torch.float32)
    assert_close(run(plugin, tensors), reference(inputs, tensors), torch.float32, slack=2)


def test_smaller_shapes_than_those_built_for_run_in_its_workspace(host: Host, plugin: Plugin):
    largest = operands(scan_inputs(3, 5, SIZES), torch.float32)
    workspace_bytes = plugin.configure(specs_of(largest, free=(0, 1)))
    assert workspace_bytes is not None
    inputs = scan_inputs(1, 2, SIZES)
    tensors = operands(inputs, torch.float32)
    guard = 64
    workspace = torch.full((workspace_bytes + guard,), 255, dtype=torch.uint8)
    y = torch.full((1, 2, 2 * SIZES.d_inner), torch.nan)
    assert plugin.enqueue(tensors, specs_of(tensors), y, workspace)
    assert_close(y, reference(inputs, tensors), torch.float32, slack=2)
    assert (workspace[workspace_bytes:] == 255).all()


@pytest.mark.parametrize("empty", [(0, 5), (3, 0), (0, 0)])
def test_nothing_to_scan_is_no_error(plugin: Plugin, empty: tuple[int, int]):
    given = [Spec((*empty, SHAPES[0][2])), *specs()[1:]]
    assert plugin.configure(given) == 0
    assert plugin.shape_change(given)
    assert plugin.enqueue([None] * 6, given, None, None)


@pytest.mark.parametrize("name", [*INPUTS, "y"])
def test_missing_array_is_refused(host: Host, plugin: Plugin, name: str):
    tensors: list[Tensor | None] = [*operands(scan_inputs(3, 5, SIZES), torch.float32)]
    y: Tensor | None = torch.zeros(3, 5, 128)
    if name == "y":
        y = None
    else:
        tensors[INPUTS.index(name)] = None
    workspace = torch.zeros(max(plugin.configure(specs()) or 0, 1), dtype=torch.uint8)
    assert not plugin.enqueue(tensors, specs(), y, workspace)
    assert one_message(host).startswith("not run: ")


def test_missing_workspace_is_refused(host: Host, plugin: Plugin):
    if not plugin.configure(specs()):
        pytest.skip("these sizes need no workspace")
    tensors = operands(scan_inputs(3, 5, SIZES), torch.float32)
    assert not plugin.enqueue(tensors, specs(), torch.zeros(3, 5, 128), None)
    assert "bytes of workspace, which the engine was built without" in one_message(host)
