"""The plugin's creator, shapes, types and formats, through its IPluginV3 interface."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from layers import DTYPES, attributes, one_message, specs
from native import compile_host
from plugin_host import (
    CHAR,
    CHW4,
    FLOAT32,
    INT32,
    INT64,
    Host,
    Plugin,
    Spec,
)

from bsmamba2.formats.operator import ATTRIBUTES, INPUTS, OP_TYPE, PLUGIN_NAMESPACE, PLUGIN_VERSION

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
    """Inputs are refused when an engine is configured, when shapes change and when it runs."""
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


# --- messages ---


@pytest.mark.parametrize("major", [1, 11])
def test_message_goes_to_stderr_under_another_major_version_than_the_headers(
    plugin_library: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], major: int
):
    """The logger of that version may have another layout, and calling it would crash."""
    copy = tmp_path / "libcopy.so"  # which keeps its logger apart
    shutil.copy(plugin_library, copy)
    host = Host(compile_host(tmp_path / "libhost.so", f"-DHOST_MAJOR={major}"), copy)
    assert host.create(attributes())
    assert host.create(attributes(n_heads=0)) is None
    assert host.messages() == ""
    sentence = "bsm::BiMamba2Scan: attribute n_heads must be 1 to 64, not 0\n"
    assert capfd.readouterr().err == sentence
