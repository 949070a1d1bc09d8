"""Laws of the choice of mamba_ssm's kernels, and of what is handed to them.

The kernels need a GPU. Here stand-ins with the signatures of mamba_ssm 2.3 compute what its
documentation says, in plain loops, so that the order and meaning of every argument are checked;
the last test runs the real ones where there is a GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import plain_scan
import pytest
import torch
from tolerances import assert_close
from torch import Tensor

from bench.common.scans import ODD, ScanInputs, head_sizes, scan_inputs
from bsmamba2.models import kernels
from bsmamba2.models.kernels import mamba_ssm_direction, scan_direction, uses_mamba_ssm
from bsmamba2.models.scan import ScanParameters, scan_direction_chunked

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MODULE = "mamba_ssm.ops.triton.ssd_combined"


@pytest.fixture(autouse=True)
def fresh_choice() -> Iterator[None]:
    """Clears the cached result of the import, which is looked up once per process."""
    kernels._mamba_ssm.cache_clear()
    yield
    kernels._mamba_ssm.cache_clear()


def plain(function: Callable[..., Any], like: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
    """Calls a function of plain_scan with tensors; returns a tensor of the type of `like`."""
    arrays = [a.detach().double().numpy() if isinstance(a, Tensor) else a for a in arguments]
    return torch.from_numpy(function(*arrays, **keywords)).to(like.dtype)


def check_chunk(chunk_size: int, seqlen: int) -> None:
    assert chunk_size & (chunk_size - 1) == 0, "Triton's tiles are powers of two"
    assert 16 <= chunk_size <= 256
    assert chunk_size < 2 * max(seqlen, 16), "mostly padding"


def mamba_split_conv1d_scan_combined(
    zxbcdt: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    chunk_size: int,
    initial_states: None = None,
    seq_idx: None = None,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    activation: str = "silu",
    rmsnorm_weight: Tensor | None = None,
    rmsnorm_eps: float = 1e-6,
    outproj_weight: None = None,
    outproj_bias: None = None,
    headdim: int | None = None,
    ngroups: int = 1,
    norm_before_gate: bool = True,
    state_dtype: None = None,
) -> Tensor:
    """Convolution, scan, gate and norm, with the options that this network uses."""
    (heads,) = D.shape
    assert headdim is not None
    assert rmsnorm_weight is not None
    d_inner = heads * headdim
    assert (initial_states, seq_idx, outproj_weight, outproj_bias) == (None,) * 4
    assert (return_final_states, norm_before_gate, ngroups, activation) == (False, False, 1, "silu")
    assert dt_limit == (0.0, float("inf"))
    assert dt_bias.shape == A.shape == (heads,)
    assert rmsnorm_weight.shape == (d_inner,)
    check_chunk(chunk_size, zxbcdt.shape[1])
    y = plain(
        plain_scan.forward_direction,
        zxbcdt,
        *(zxbcdt, conv1d_weight, conv1d_bias, dt_bias, A, D),
        d_state=(len(conv1d_weight) - d_inner) // 2,
        eps=rmsnorm_eps,
    )
    return y * rmsnorm_weight


def mamba_chunk_scan_combined(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: None = None,
    dt_bias: Tensor | None = None,
    initial_states: None = None,
    seq_idx: None = None,
    cu_seqlens: None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    return_varlen_states: bool = False,
    state_dtype: None = None,
) -> Tensor:
    """The scan alone: x (N, L, H, P), dt (N, L, H), B and C (N, L, groups, S)."""
    N, L, H, _ = x.shape
    assert z is None
    assert D is not None
    assert dt_bias is not None
    assert D.shape == A.shape == dt_bias.shape == (H,)
    assert dt.shape == (N, L, H)
    assert B.shape == C.shape
    assert B.shape[:3] == (N, L, 1)
    assert (return_final_states, return_varlen_states, dt_softplus) == (False, False, True)
    check_chunk(chunk_size, L)
    step = plain(plain_scan.softplus, x.double(), dt.double() + dt_bias)
    return plain(plain_scan.recurrence, x, x, step, A, B[:, :, 0], C[:, :, 0], D)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Makes the stand-ins importable, with or without causal_conv1d."""

    def install(has_causal_conv1d: bool = True) -> None:
        module: Any = ModuleType(MODULE)
        module.causal_conv1d_fwd_function = print if has_causal_conv1d else None
        module.mamba_chunk_scan_combined = mamba_chunk_scan_combined
        if has_causal_conv1d:  # without it mamba_ssm's function is there, but fails
            module.mamba_split_conv1d_scan_combined = mamba_split_conv1d_scan_combined
        monkeypatch.setitem(sys.modules, MODULE, module)

    return install


# --- the choice ---


def test_a_gpu_with_mamba_ssm_uses_it_and_a_cpu_does_not(install: Callable[[bool], None]):
    for has_causal_conv1d in (True, False):
        install(has_causal_conv1d)
        kernels._mamba_ssm.cache_clear()
        assert uses_mamba_ssm(CUDA)
        assert uses_mamba_ssm(torch.device("cuda", 1))
        assert not uses_mamba_ssm(CPU)


def test_a_gpu_without_mamba_ssm_does_not_use_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    assert not uses_mamba_ssm(CUDA)
    assert not uses_mamba_ssm(CPU)


@pytest.mark.parametrize("error", ["RuntimeError('0 active drivers')", "ImportError('libcuda.so')"])
def test_a_mamba_ssm_whose_import_fails_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str
):
    (tmp_path / "mamba_ssm").mkdir()
    (tmp_path / "mamba_ssm" / "__init__.py").write_text(f"raise {error}\n")
    monkeypatch.delitem(sys.modules, "mamba_ssm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert not uses_mamba_ssm(CUDA)


def test_training_goes_to_the_chosen_function(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def uses(device: torch.device) -> bool:
        asked.append(device)
        return True

    inputs = scan_inputs(1, 3)
    keywords = {"d_state": ODD.d_state, "eps": 1e-5, "reverse": True}
    monkeypatch.setattr(kernels, "uses_mamba_ssm", uses)
    monkeypatch.setattr(kernels, "mamba_ssm_direction", lambda *a, **k: (a, k))
    direction = inputs.direction(0)
    arguments, passed = scan_direction(*direction, **keywords)
    assert asked == [CPU]
    assert passed == keywords
    assert all(a is b for a, b in zip(arguments, direction, strict=True))


# --- what is handed over ---


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("L", [1, 15, 62, 130, 257])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("has_causal_conv1d", [True, False], ids=["conv1d", "no-conv1d"])
def test_mamba_ssm_is_asked_for_the_chunked_scan(
    install: Callable[[bool], None],
    has_causal_conv1d: bool,
    reverse: bool,
    L: int,
    dtype: torch.dtype,
):
    install(has_causal_conv1d)
    inputs = scan_inputs(2, L, seed=L).to(dtype)
    arguments = inputs.direction(int(reverse))
    keywords = {"d_state": ODD.d_state, "eps": 1e-3, "reverse": reverse}
    y = mamba_ssm_direction(*arguments, **keywords)
    assert y.dtype == dtype
    # Gate and norm of the form without causal_conv1d are float32 at most.
    slack = 1e5 if dtype == torch.float64 and not has_causal_conv1d else 1
    assert_close(y, scan_direction_chunked(*arguments, **keywords), dtype, slack)


# --- the real kernels ---


def on_gpu(inputs: ScanInputs, reverse: bool) -> tuple[Tensor, ScanParameters]:
    zxbcdt, parameters = inputs.direction(int(reverse))
    first, *rest = (tensor.cuda().requires_grad_() for tensor in (zxbcdt, *parameters))
    return first, ScanParameters(*rest)


@pytest.mark.gpu
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("L", [62, 801])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mamba_ssms_kernels_are_the_chunked_scan(dtype: torch.dtype, L: int, reverse: bool):
    pytest.importorskip("mamba_ssm")
    assert uses_mamba_ssm(CUDA)
    sizes = head_sizes(4, 64, 128)
    inputs = scan_inputs(2, L, sizes).to(dtype)
    keywords = {"d_state": sizes.d_state, "eps": 1e-5, "reverse": reverse}
    exact = scan_direction_chunked(*inputs.to(torch.float64).direction(int(reverse)), **keywords)
    arguments = on_gpu(inputs, reverse)
    y = mamba_ssm_direction(*arguments, **keywords)
    # Triton's products of float32 are TF32.
    assert_close(y, exact, torch.bfloat16, slack=2)
    chunked = on_gpu(inputs, reverse)
    y.float().square().sum().backward()
    scan_direction_chunked(*chunked, **keywords).float().square().sum().backward()
    for ours, expected in zip(*((x, *p) for x, p in (arguments, chunked)), strict=True):
        assert_close(ours.grad, expected.grad, torch.bfloat16, slack=10)
