"""The scan of one direction for training: mamba_ssm's Triton kernels, or the chunked form."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bsmamba2.models.scan import ScanParameters, scan_direction_chunked

MAX_CHUNK = 256  # steps; mamba_ssm's default
MIN_CHUNK = 16  # steps; the smallest tile of its matrix products


@functools.cache
def _mamba_ssm() -> tuple[Any, bool] | None:
    """Returns mamba_ssm's module of combined kernels, and whether it has causal_conv1d."""
    try:
        ops = importlib.import_module("mamba_ssm.ops.triton.ssd_combined")
    except (ImportError, RuntimeError):  # Triton raises RuntimeError without a driver
        return None
    return ops, getattr(ops, "causal_conv1d_fwd_function", None) is not None


def uses_mamba_ssm(device: torch.device) -> bool:
    """Whether training on a device uses mamba_ssm's kernels: on a GPU, if they can be imported."""
    return device.type == "cuda" and _mamba_ssm() is not None


def mamba_ssm_chunk(length: int) -> int:
    """Steps of a chunk for sequences of `length`; 256 would mean 94 % padding along bands."""
    return min(MAX_CHUNK, max(MIN_CHUNK, 1 << (length - 1).bit_length()))


def scan_direction(
    zxbcdt: Tensor,
    parameters: ScanParameters,
    *,
    d_state: int,
    eps: float,
    reverse: bool = False,
) -> Tensor:
    """Scans one direction for training: with mamba_ssm where available, otherwise chunked.

    Arguments and result are those of `bsmamba2.models.scan.scan_direction_chunked`.
    """
    chosen = mamba_ssm_direction if uses_mamba_ssm(zxbcdt.device) else scan_direction_chunked
    return chosen(zxbcdt, parameters, d_state=d_state, eps=eps, reverse=reverse)


def mamba_ssm_direction(
    zxbcdt: Tensor,
    parameters: ScanParameters,
    *,
    d_state: int,
    eps: float,
    reverse: bool = False,
) -> Tensor:
    """Scans one direction with mamba_ssm: (N, L, W) to (N, L, I).

    Its kernels only scan forward: in reverse, the inputs and the output are flipped. With
    causal_conv1d, one kernel does everything and keeps little for the backward pass; without it,
    PyTorch computes convolution, gate and norm.

    Arguments and result are those of `bsmamba2.models.scan.scan_direction_chunked`.
    """
    found = _mamba_ssm()
    assert found is not None, "check uses_mamba_ssm first"
    ops, has_causal_conv1d = found
    if reverse:
        zxbcdt = zxbcdt.flip(1)
    n_heads, d_inner = len(parameters.A), len(parameters.conv_weight) - 2 * d_state
    chunk = mamba_ssm_chunk(zxbcdt.shape[1])
    if has_causal_conv1d:
        y = ops.mamba_split_conv1d_scan_combined(
            zxbcdt,
            *parameters,
            chunk_size=chunk,
            rmsnorm_weight=torch.ones(d_inner, device=zxbcdt.device, dtype=zxbcdt.dtype),
            rmsnorm_eps=eps,
            headdim=d_inner // n_heads,
            ngroups=1,
            norm_before_gate=False,
        )
    else:
        y = _chunk_scan(ops, zxbcdt, parameters, chunk, d_inner, d_state, eps)
    return y.flip(1) if reverse else y


def _chunk_scan(
    ops: Any,
    zxbcdt: Tensor,
    parameters: ScanParameters,
    chunk: int,
    d_inner: int,
    d_state: int,
    eps: float,
) -> Tensor:
    conv_weight, conv_bias, dt_bias, A, D = parameters
    n_heads, d_xbc = len(A), len(conv_weight)
    z, xbc, dt = zxbcdt.split((d_inner, d_xbc, n_heads), dim=-1)
    xbc = F.conv1d(
        F.pad(xbc.transpose(1, 2), (conv_weight.shape[-1] - 1, 0)),
        conv_weight[:, None].to(xbc.dtype),
        conv_bias.to(xbc.dtype),
        groups=d_xbc,
    ).transpose(1, 2)
    x, B, C = F.silu(xbc).split((d_inner, d_state, d_state), dim=-1)
    y = ops.mamba_chunk_scan_combined(
        x.unflatten(-1, (n_heads, d_inner // n_heads)),
        dt,
        A,
        B[:, :, None],
        C[:, :, None],
        chunk,
        D=D,
        dt_bias=dt_bias,
        dt_softplus=True,
    )
    gated = y.flatten(2).float() * F.silu(z.float())
    return F.rms_norm(gated, (d_inner,), eps=eps).to(zxbcdt.dtype)
