"""Laws of the scan: the reference is the paper's recurrence, the chunked form is the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import plain_scan
import pytest
import torch
from tolerances import assert_close, extreme_slack, relative_rms
from torch import Tensor

from bench.common.scans import (
    EXTREMES,
    FULL,
    LENGTHS,
    ODD,
    ONE_HEAD,
    ScanInputs,
    extreme_inputs,
    head_sizes,
    scan_inputs,
)
from bsmamba2.models import scan
from bsmamba2.models.kernels import scan_direction
from bsmamba2.models.scan import (
    ScanParameters,
    Sizes,
    bimamba2_scan_chunked,
    bimamba2_scan_reference,
    scan_direction_chunked,
)
from bsmamba2.models.scan_operator import SCAN_OPERATOR, bimamba2_scan

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def reference(inputs: ScanInputs) -> Tensor:
    return bimamba2_scan_reference(*inputs.arguments, **inputs.attributes)


def chunked(inputs: ScanInputs) -> Tensor:
    with torch.no_grad():
        return bimamba2_scan_chunked(*inputs.arguments, **inputs.attributes)


def operator(inputs: ScanInputs) -> Tensor:
    return bimamba2_scan(*inputs.arguments, **inputs.attributes)


def flat_arrays(inputs: ScanInputs, number: int) -> list[np.ndarray]:
    """One direction's arguments."""
    zxbcdt, parameters = inputs.direction(number)
    return [tensor.numpy() for tensor in (zxbcdt, *parameters)]


TWINS = pytest.mark.parametrize("twin", [reference, chunked, operator])


# --- the reference, against formulas that share no line with it ---


@pytest.mark.parametrize("sizes", [ODD, ONE_HEAD], ids=["odd", "one-head"])
@pytest.mark.parametrize("L", [1, 3, 4, 5, 70])
@pytest.mark.parametrize("taps", [1, 4])
def test_reference_is_the_papers_loop(sizes: Sizes, L: int, taps: int):
    inputs = scan_inputs(2, L, sizes, taps=taps)
    keywords = {"d_state": sizes.d_state, "eps": inputs.eps}
    forward, backward = (flat_arrays(inputs, number) for number in (0, 1))
    backward[0] = backward[0][:, ::-1]
    expected = [
        plain_scan.forward_direction(*forward, **keywords),
        plain_scan.forward_direction(*backward, **keywords)[:, ::-1],
    ]
    assert_close(reference(inputs), np.concatenate(expected, axis=-1))


@pytest.mark.parametrize("kind", EXTREMES)
def test_reference_is_the_papers_loop_on_extremes(kind: str):
    inputs = extreme_inputs(kind, 2, 70)
    forward = flat_arrays(inputs, 0)
    expected = plain_scan.forward_direction(*forward, d_state=ODD.d_state, eps=inputs.eps)
    assert_close(reference(inputs)[..., : ODD.d_inner], expected)


# --- the chunked form, against the reference ---


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("L", LENGTHS)
def test_chunked_is_the_reference(L: int, dtype: torch.dtype):
    for N in (1, 2, 5) if L < 801 else (2,):
        inputs = scan_inputs(N, L).to(dtype)
        y = chunked(inputs)
        assert y.dtype == dtype
        assert_close(y, reference(inputs), dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("L", "sizes"), [(62, FULL), (65, FULL), (129, ONE_HEAD)])
def test_chunked_is_the_reference_at_other_sizes(L: int, sizes: Sizes, dtype: torch.dtype):
    inputs = scan_inputs(1, L, sizes).to(dtype)
    assert_close(chunked(inputs), reference(inputs), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("L", [63, 260])
@pytest.mark.parametrize("kind", EXTREMES)
def test_chunked_is_the_reference_on_extremes(kind: str, L: int, dtype: torch.dtype):
    inputs = extreme_inputs(kind, 2, L).to(dtype)
    assert_close(chunked(inputs), reference(inputs), dtype, extreme_slack(kind, dtype))


def test_extremes_are_extreme():
    """The log decays of a chunk go far beyond what float32's exp can invert."""
    inputs = extreme_inputs("strong decay", 1, 64)
    dt = torch.nn.functional.softplus(
        inputs.direction(0)[0][..., -ODD.n_heads :] + inputs.dt_bias[0]
    )
    assert ((dt * inputs.A[0]).sum(1) < -1000).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("steps", [64, 2])
def test_half_types_keep_long_memories(
    monkeypatch: pytest.MonkeyPatch, steps: int, dtype: torch.dtype
):
    """Steps, decays and states are float32: the end of a song is as accurate as its start."""
    monkeypatch.setattr(scan, "CHUNK", steps)  # 2: the state passes through 400 chunks
    inputs = scan_inputs(4, 801).to(dtype)
    inputs = replace(inputs, A=inputs.A / 1000)  # half of the state is left after 800 steps
    y, expected = chunked(inputs), reference(inputs)
    assert_close(y, expected, dtype, slack=2)  # outputs cancel more with more in the state
    ends = [relative_rms(y[:, part], expected[:, part]) for part in (slice(64), slice(-64, None))]
    assert max(ends) < 2.5 * min(ends)


@TWINS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("L", [1, 65])
def test_zero_input_without_bias_gives_zero(
    twin: Callable[[ScanInputs], Tensor], dtype: torch.dtype, L: int
):
    inputs = scan_inputs(2, L).to(dtype)
    inputs = replace(inputs, zxbcdt=torch.zeros_like(inputs.zxbcdt))
    assert not twin(inputs).any()  # z = 0 closes the gate
    quiet = replace(inputs, conv_bias=torch.zeros_like(inputs.conv_bias))
    assert not twin(quiet).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("L", [62, 129])
def test_backward_scan_is_forward_scan_of_reversed_input_with_swapped_parameters(
    L: int, dtype: torch.dtype
):
    inputs = scan_inputs(2, L).to(dtype)
    swapped = ScanInputs(
        inputs.zxbcdt.flip(1).roll(ODD.width, dims=-1),
        *(tensor.flip(0) for tensor in inputs.tensors[1:]),
        sizes=ODD,
    )
    expected = chunked(swapped).flip(1).roll(ODD.d_inner, dims=-1)
    assert_close(chunked(inputs), expected, dtype)


@pytest.mark.parametrize("L", [5, 129])
def test_the_past_does_not_depend_on_the_future(L: int):
    inputs = scan_inputs(1, L)
    later = inputs.zxbcdt.clone()
    later[:, L // 2 :] += 1
    y, other = chunked(inputs), chunked(replace(inputs, zxbcdt=later))
    forward, backward = (y - other).split(ODD.d_inner, dim=-1)
    assert not forward[:, : L // 2].any()
    assert forward[:, L // 2 :].any()
    assert backward[:, : L // 2].any()
    first = inputs.zxbcdt.clone()
    first[:, 0] += 1
    _, backward = (y - chunked(replace(inputs, zxbcdt=first))).split(ODD.d_inner, dim=-1)
    assert not backward[:, 1:].any()


@pytest.mark.parametrize("L", [62, 130])
def test_sequences_do_not_touch_each_other(L: int):
    inputs = scan_inputs(5, L)
    alone = [chunked(replace(inputs, zxbcdt=x[None])) for x in inputs.zxbcdt]
    assert_close(chunked(inputs), torch.cat(alone))


@pytest.mark.parametrize("steps", [1, 129, 300, 10**9])
@pytest.mark.parametrize("L", [62, 129])
def test_sequences_scanned_together_on_a_cpu_change_nothing(
    monkeypatch: pytest.MonkeyPatch, L: int, steps: int
):
    inputs = scan_inputs(7, L)
    for tensor in inputs.tensors:
        tensor.requires_grad_()
    # All at once, because it keeps gradients.
    expected = bimamba2_scan_chunked(*inputs.arguments, **inputs.attributes)
    monkeypatch.setattr(scan, "CPU_STEPS", steps)
    assert_close(chunked(inputs), expected)


@pytest.mark.parametrize("L", [1, 7, 64, 130])
def test_length_of_a_chunk_changes_nothing(monkeypatch: pytest.MonkeyPatch, L: int):
    inputs = scan_inputs(2, L)
    expected = chunked(inputs)
    for steps in (1, 3, 64, 256):
        monkeypatch.setattr(scan, "CHUNK", steps)
        assert_close(chunked(inputs), expected)


@TWINS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_inputs_are_left_alone(twin: Callable[[ScanInputs], Tensor], dtype: torch.dtype):
    inputs = scan_inputs(2, 65).to(dtype)
    before = [tensor.clone() for tensor in inputs.tensors]
    y = twin(inputs)
    y.zero_()  # the output must not share memory with an input
    assert all(torch.equal(a, b) for a, b in zip(inputs.tensors, before, strict=True))


@TWINS
def test_strides_do_not_matter(twin: Callable[[ScanInputs], Tensor]):
    inputs = scan_inputs(3, 65)

    def strided(tensor: Tensor) -> Tensor:
        wide = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1]), torch.nan, dtype=tensor.dtype)
        wide = wide.transpose(0, 1).contiguous().transpose(0, 1)
        wide[..., ::2] = tensor
        return wide[..., ::2]

    other = ScanInputs(*map(strided, inputs.tensors), sizes=ODD)
    assert not other.zxbcdt.is_contiguous()
    assert_close(twin(other), twin(inputs))


# --- gradients ---


@pytest.mark.parametrize(("L", "steps"), [(1, 64), (5, 64), (7, 3)])
def test_gradients_are_finite_differences(monkeypatch: pytest.MonkeyPatch, L: int, steps: int):
    monkeypatch.setattr(scan, "CHUNK", steps)
    inputs = scan_inputs(1, L, head_sizes(2, 2, 2), taps=2)

    def run(zxbcdt: Tensor, *tensors: Tensor) -> Tensor:
        return bimamba2_scan_chunked(zxbcdt, ScanParameters(*tensors), **inputs.attributes)

    assert torch.autograd.gradcheck(
        run, [t.requires_grad_() for t in inputs.tensors], fast_mode=True
    )


@pytest.mark.parametrize("kind", ["usual", *EXTREMES])
@pytest.mark.parametrize("L", [62, 130])
def test_gradients_are_the_references(kind: str, L: int):
    inputs = scan_inputs(2, L) if kind == "usual" else extreme_inputs(kind, 2, L)
    tensors = [tensor.requires_grad_() for tensor in inputs.tensors]
    target = torch.randn(2, L, 2 * ODD.d_inner, generator=torch.Generator().manual_seed(1)).double()
    gradients = [
        torch.autograd.grad(
            (function(*inputs.arguments, **inputs.attributes) * target).sum(), tensors
        )
        for function in (bimamba2_scan_chunked, bimamba2_scan_reference)
    ]
    # The sums cancel; with a strong decay, the gradients of A and dt nearly vanish.
    slack = 1e6 if kind == "strong decay" else 100
    for ours, expected in zip(*gradients, strict=True):
        assert_close(ours, expected, slack=slack)


def test_gradients_of_silence_are_finite():
    inputs = scan_inputs(1, 70).to(torch.float32)
    inputs = replace(inputs, zxbcdt=torch.zeros_like(inputs.zxbcdt))
    tensors = [tensor.requires_grad_() for tensor in inputs.tensors]
    bimamba2_scan_chunked(*inputs.arguments, **inputs.attributes).sum().backward()
    assert all(t.grad is not None and t.grad.isfinite().all() for t in tensors)


# --- one direction, for training ---


def test_directions_together_are_the_operator():
    inputs = scan_inputs(2, 65)
    keywords = {"d_state": ODD.d_state, "eps": inputs.eps}
    for function in (scan_direction, scan_direction_chunked):
        both = [
            function(*inputs.direction(number), **keywords, reverse=number == 1)
            for number in (0, 1)
        ]
        assert_close(torch.cat(both, dim=-1), chunked(inputs))


# --- what is refused ---

WRONG = {
    "zxbcdt": [(2, 3), (2, 3, 4, 5), (), (2, 0, 2 * ODD.width)],
    "conv_weight": [(2, 29), (2, 28, 4), (1, 29, 4), (3, 29, 4), (29, 4), (2, 29, 0), ()],
    "conv_bias": [(2, 28), (29,), (1, 29), (2, 29, 1), ()],
    "dt_bias": [(2, 4), (3,), (1, 3), (2, 3, 1), (6,)],
    "A": [(2, 1), (3,), (3, 3), ()],
    "D": [(2, 5), (3,), (2, 3, 5), ()],
}


@TWINS
@pytest.mark.parametrize(
    ("name", "shape"), [(name, shape) for name, shapes in WRONG.items() for shape in shapes]
)
def test_wrong_shapes_are_named_with_both_shapes(
    twin: Callable[[ScanInputs], Tensor], name: str, shape: tuple[int, ...]
):
    inputs = scan_inputs(2, 3)
    expected = {"zxbcdt": "(N, L >= 1, 2 W)", "conv_weight": "(2, 29, "}.get(
        name, str(tuple(getattr(inputs, name).shape))
    )
    with pytest.raises(ValueError, match=f"^{name} ") as error:
        twin(replace(inputs, **{name: torch.zeros(shape).double()}))
    assert expected in str(error.value)
    assert f"not {shape}" in str(error.value)


@TWINS
@pytest.mark.parametrize("width", [0, 1, 2 * ODD.width - 1, 2 * ODD.width + 4])
def test_a_width_of_no_projection_is_named(twin: Callable[[ScanInputs], Tensor], width: int):
    inputs = replace(scan_inputs(2, 3), zxbcdt=torch.zeros(2, 3, width).double())
    with pytest.raises(ValueError, match=rf"^zxbcdt has {width} features") as error:
        twin(inputs)
    assert "2 * (2 d_inner + 2 * 7 + 3)" in str(error.value)


@TWINS
@pytest.mark.parametrize(
    "change", [{"n_heads": 0}, {"n_heads": -1}, {"d_state": 0}, {"n_heads": 4}]
)
def test_attributes_that_do_not_fit_are_refused(
    twin: Callable[[ScanInputs], Tensor], change: dict[str, int]
):
    inputs = scan_inputs(2, 3)
    with pytest.raises(ValueError, match=r"zxbcdt|n_heads|d_state"):
        twin(replace(inputs, sizes=ODD._replace(**change)))


# --- the custom operator ---


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("L", [1, 65])
def test_custom_operator_keeps_its_promises(L: int, dtype: torch.dtype):
    inputs = scan_inputs(2, L).to(dtype)
    arguments = (*inputs.tensors, *inputs.attributes.values())
    torch.library.opcheck(SCAN_OPERATOR, arguments)
    assert torch.equal(operator(inputs), chunked(inputs))
