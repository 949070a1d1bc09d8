"""The bidirectional Mamba2 scan: a sequential reference and a chunked form with one signature.

The scan is everything between the input and output projections of a block, for both directions:
causal convolution, SiLU, selective state space, skip, gate and norm. The ONNX function body
(`bsmamba2.export.onnx.scan_function`) and the CUDA kernel (`cuda_scan`) compute the same.
`scan_operator` registers it with PyTorch as `bsm::bimamba2_scan`.

Shape suffixes: N sequences, L steps, H heads, P channels of a head, S state size, c chunks,
Q steps of a chunk, I = H * P inner channels, W = 2 I + 2 S + H inputs of a direction.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 64  # steps; longer chunks mean larger masks but fewer states, about balanced here
CPU_STEPS = 4096  # total steps of the sequences that are scanned together on a CPU


class ScanParameters(NamedTuple):
    """Learned parameters of a scan, for both directions; those of one lack the leading 2."""

    conv_weight: Tensor
    """(2, I + 2 S, taps), depthwise, over [x, B, C]."""
    conv_bias: Tensor
    """(2, I + 2 S)."""
    dt_bias: Tensor
    """(2, H)."""
    A: Tensor
    """(2, H), negative: `-exp(A_log)`."""
    D: Tensor
    """(2, H), skip."""

    def direction(self, number: int) -> ScanParameters:
        """Returns the parameters of one direction: 0 is forward, 1 backward."""
        return ScanParameters(*(tensor[number] for tensor in self))


class Sizes(NamedTuple):
    """Sizes of one direction, derived from the operator's inputs."""

    d_inner: int
    d_state: int
    n_heads: int

    @property
    def headdim(self) -> int:
        """Channels of a head."""
        return self.d_inner // self.n_heads

    @property
    def d_xbc(self) -> int:
        """Channels of the convolution."""
        return self.d_inner + 2 * self.d_state

    @property
    def width(self) -> int:
        """Input features of one direction."""
        return self.d_inner + self.d_xbc + self.n_heads


def scan_sizes(zxbcdt: Tensor, parameters: ScanParameters, n_heads: int, d_state: int) -> Sizes:
    """Derives the sizes from the operator's inputs, and checks these against each other.

    Raises:
        ValueError: An input does not fit; the message gives both shapes.
    """
    if n_heads < 1 or d_state < 1:
        raise ValueError(f"n_heads and d_state must be positive, not {n_heads} and {d_state}")
    if zxbcdt.ndim != 3 or zxbcdt.shape[1] < 1:
        raise ValueError(f"zxbcdt must be (N, L >= 1, 2 W), not {tuple(zxbcdt.shape)}")
    inner_twice, odd = divmod(zxbcdt.shape[2] - 4 * d_state - 2 * n_heads, 4)
    sizes = Sizes(inner_twice, d_state, n_heads)
    if odd or inner_twice < n_heads or inner_twice % n_heads:
        raise ValueError(
            f"zxbcdt has {zxbcdt.shape[2]} features, which is not 2 * (2 d_inner + 2 * {d_state} "
            f"+ {n_heads}) for a d_inner that {n_heads} heads divide"
        )
    taps = max((1, *parameters.conv_weight.shape[-1:]))
    per_head = (2, n_heads)
    expected = ((2, sizes.d_xbc, taps), (2, sizes.d_xbc), per_head, per_head, per_head)
    for name, tensor, shape in zip(parameters._fields, parameters, expected, strict=True):
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must be {shape}, not {tuple(tensor.shape)}")
    return sizes


def bimamba2_scan_reference(
    zxbcdt: Tensor,
    parameters: ScanParameters,
    *,
    n_heads: int,
    d_state: int,
    eps: float,
) -> Tensor:
    """Computes the scan as the paper defines it, one step after the other, in float64.

    Args:
        zxbcdt: (N, L, 2 W), the projections [z, x, B, C, dt] forward, then backward, both in
            natural time order.
        parameters: Parameters of both directions.
        n_heads: H.
        d_state: S.
        eps: Added to the mean square of the gated output.

    Returns:
        (N, L, 2 I) float64, forward then backward, both in natural time order.

    Raises:
        ValueError: The sizes do not fit each other.
    """
    sizes = scan_sizes(zxbcdt, parameters, n_heads, d_state)
    outputs = []
    for direction, inputs in enumerate(zxbcdt.double().split(sizes.width, dim=-1)):
        exact = ScanParameters(*(tensor.double() for tensor in parameters.direction(direction)))
        outputs.append(
            scan_direction_reference(
                inputs, exact, d_state=d_state, eps=eps, reverse=direction == 1
            )
        )
    return torch.cat(outputs, dim=-1)


def scan_direction_reference(
    zxbcdt: Tensor,
    parameters: ScanParameters,
    *,
    d_state: int,
    eps: float,
    reverse: bool = False,
) -> Tensor:
    """Scans one direction step by step, in the type of its inputs: (N, L, W) to (N, L, I)."""
    if reverse:
        forward = scan_direction_reference(zxbcdt.flip(1), parameters, d_state=d_state, eps=eps)
        return forward.flip(1)
    conv_weight, conv_bias, dt_bias, A_H, D_H = parameters
    d_inner, n_heads = len(conv_weight) - 2 * d_state, len(A_H)
    z_NLI, xbc, dt_NLH = zxbcdt.split((d_inner, len(conv_weight), n_heads), dim=-1)
    taps = conv_weight.shape[-1]
    history = F.pad(xbc, (0, 0, taps - 1, 0))
    length = xbc.shape[1]
    xbc = sum((history[:, k : k + length] * conv_weight[:, k] for k in range(taps)), conv_bias)
    x_NLI, B_NLS, C_NLS = F.silu(xbc).split((d_inner, d_state, d_state), dim=-1)
    x_NLHP = x_NLI.unflatten(-1, (n_heads, -1))
    dt_NLH = torch.log1p(torch.exp(-dt_NLH.add(dt_bias).abs())) + F.relu(dt_NLH + dt_bias)
    a_NLH = torch.exp(A_H * dt_NLH)
    h_NHPS = x_NLHP.new_zeros(*x_NLHP[:, 0].shape, d_state)
    y = []
    for t in range(length):
        # h_t = a_t h_{t-1} + dt_t x_t (outer) B_t;  y_t = h_t C_t + D x_t
        update = torch.einsum("nhp,ns->nhps", dt_NLH[:, t, :, None] * x_NLHP[:, t], B_NLS[:, t])
        h_NHPS = a_NLH[:, t, :, None, None] * h_NHPS + update
        y.append(torch.einsum("nhps,ns->nhp", h_NHPS, C_NLS[:, t]) + D_H[:, None] * x_NLHP[:, t])
    y_NLI = torch.stack(y, dim=1).flatten(2) * F.silu(z_NLI)
    return y_NLI * torch.rsqrt(y_NLI.square().mean(-1, keepdim=True) + eps)


def bimamba2_scan_chunked(
    zxbcdt: Tensor,
    parameters: ScanParameters,
    *,
    n_heads: int,
    d_state: int,
    eps: float,
) -> Tensor:
    """Computes the scan with matrix products over chunks of 64 steps: any device, differentiable.

    Softplus, decays, cumulative sums, states and norms are in float32 (float64 for float64
    inputs); matrix operands have the type of `zxbcdt`. Arguments and errors are those of
    `bimamba2_scan_reference`.

    Returns:
        (N, L, 2 I), in the type of `zxbcdt`.
    """
    sizes = scan_sizes(zxbcdt, parameters, n_heads, d_state)
    return torch.cat(
        [
            scan_direction_chunked(
                inputs,
                parameters.direction(direction),
                d_state=d_state,
                eps=eps,
                reverse=direction == 1,
            )
            for direction, inputs in enumerate(zxbcdt.split(sizes.width, dim=-1))
        ],
        dim=-1,
    )


def scan_direction_chunked(
    zxbcdt: Tensor,
    parameters: ScanParameters,
    *,
    d_state: int,
    eps: float,
    reverse: bool = False,
) -> Tensor:
    """Scans one direction in chunks: (N, L, W) to (N, L, I).

    With `reverse` it convolves and scans from the end. No tensor is flipped for that: the
    convolution looks ahead, the cumulative sums run from the other end, and the decay mask is the
    upper triangle. For inference on a CPU, a few sequences are scanned at a time, so that
    intermediate results stay in its cache: about three times faster.
    """
    if zxbcdt.device.type == "cpu" and not torch.is_grad_enabled():
        parts = zxbcdt.split(max(1, CPU_STEPS // zxbcdt.shape[1]))
    else:
        parts = (zxbcdt,)
    outputs = [_scan_sequences(part, parameters, d_state, eps, reverse) for part in parts]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _scan_sequences(
    zxbcdt: Tensor, parameters: ScanParameters, d_state: int, eps: float, reverse: bool
) -> Tensor:
    conv_weight, conv_bias, dt_bias, A, D = parameters
    n_heads = len(A)
    d_inner = len(conv_weight) - 2 * d_state
    length = zxbcdt.shape[1]
    acc = torch.float64 if zxbcdt.dtype == torch.float64 else torch.float32
    z_NLI, xbc, dt_NLH = zxbcdt.split((d_inner, d_inner + 2 * d_state, n_heads), dim=-1)
    xbc = F.silu(_causal_conv(xbc, conv_weight, conv_bias, reverse))
    dt_NLH = F.softplus(dt_NLH.to(acc) + dt_bias)

    n_chunks = -(-length // CHUNK)
    steps = CHUNK if n_chunks > 1 else length
    # Padded steps have dt = 0 and x = 0: they neither decay nor feed the state.
    padding = (0, 0, 0, n_chunks * steps - length)
    xbc_NcQ, dt_NcQH = (
        F.pad(tensor, padding).unflatten(1, (n_chunks, steps)) for tensor in (xbc, dt_NLH)
    )
    x_NcQI, B_NcQS, C_NcQS = xbc_NcQ.split((d_inner, d_state, d_state), dim=-1)
    x_NcQHP = x_NcQI.unflatten(-1, (n_heads, d_inner // n_heads))
    cs_NcQH = _cumsum(dt_NcQH * A, reverse)  # log of the decay since the chunk's first step
    u_NcQHP = dt_NcQH[..., None] * x_NcQHP

    y_NcQHP = _within_chunks(u_NcQHP, B_NcQS, C_NcQS, cs_NcQH, reverse)
    if n_chunks > 1:
        y_NcQHP = y_NcQHP + _between_chunks(u_NcQHP, B_NcQS, C_NcQS, cs_NcQH, reverse)
    y_NcQHP = torch.addcmul(y_NcQHP, D[:, None], x_NcQHP)
    y_NLI = y_NcQHP.flatten(3).flatten(1, 2)[:, :length] * F.silu(z_NLI.to(acc))
    y_NLI = y_NLI * torch.rsqrt(y_NLI.square().mean(-1, keepdim=True) + eps)
    return y_NLI.to(zxbcdt.dtype)


def _causal_conv(x_NLC: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """Depthwise convolution over the current and earlier steps (later ones in reverse)."""
    length, taps = x_NLC.shape[1], weight.shape[-1]
    weight = (weight.flip(-1) if reverse else weight).to(x_NLC.dtype)
    y = F.conv1d(
        x_NLC.transpose(1, 2),
        weight[:, None],
        bias.to(x_NLC.dtype),
        padding=taps - 1,
        groups=len(weight),
    )
    return (y[..., taps - 1 :] if reverse else y[..., :length]).transpose(1, 2)


def _cumsum(a_NcQH: Tensor, reverse: bool) -> Tensor:
    """Inclusive sum along a chunk, from its end in reverse."""
    if reverse:
        return a_NcQH.flip(2).cumsum(2).flip(2)
    return a_NcQH.cumsum(2)


def _within_chunks(
    u_NcQHP: Tensor, B_NcQS: Tensor, C_NcQS: Tensor, cs_NcQH: Tensor, reverse: bool
) -> Tensor:
    """y = ((C B^T) o decay) u: what steps of the same chunk contribute."""
    CB_NcQQ = C_NcQS @ B_NcQS.mT  # once for all heads
    CB_NcQQ = CB_NcQQ.triu() if reverse else CB_NcQQ.tril()
    cs_NcHQ = cs_NcQH.transpose(2, 3)
    # Rounding can make a later sum slightly larger than an earlier one (mamba #713), and the other
    # triangle is positive: both are clamped before exp.
    decay_NcHQQ = (cs_NcHQ[..., :, None] - cs_NcHQ[..., None, :]).clamp(max=0).exp()
    mask_NcHQQ = (CB_NcQQ[:, :, None] * decay_NcHQQ).to(B_NcQS.dtype)
    y_NcHQP = mask_NcHQQ @ u_NcQHP.to(B_NcQS.dtype).transpose(2, 3)
    return y_NcHQP.transpose(2, 3).to(cs_NcQH.dtype)


def _between_chunks(
    u_NcQHP: Tensor, B_NcQS: Tensor, C_NcQS: Tensor, cs_NcQH: Tensor, reverse: bool
) -> Tensor:
    """exp(cs) o (C h): what earlier chunks contribute through the state h that enters a chunk."""
    n_chunks, n_heads, headdim = u_NcQHP.shape[1], *u_NcQHP.shape[3:]
    last_Nc1H = cs_NcQH[:, :, :1] if reverse else cs_NcQH[:, :, -1:]
    to_end_NcQH1 = (last_Nc1H - cs_NcQH).clamp(max=0).exp()[..., None]
    decayed = (u_NcQHP * to_end_NcQH1).to(B_NcQS.dtype).flatten(3)
    feed_NcSHP = (B_NcQS.mT @ decayed).to(cs_NcQH.dtype).unflatten(-1, (n_heads, headdim))
    carry_NcH1 = last_Nc1H.squeeze(2).exp()[..., None]

    order = range(n_chunks - 1, -1, -1) if reverse else range(n_chunks)
    state_NSHP = torch.zeros_like(feed_NcSHP[:, 0])
    entering: list[Tensor] = [state_NSHP] * n_chunks
    for chunk in order:
        entering[chunk] = state_NSHP
        state_NSHP = carry_NcH1[:, chunk, None] * state_NSHP + feed_NcSHP[:, chunk]
    h_NcSI = torch.stack(entering, dim=1).flatten(3).to(B_NcQS.dtype)
    y_NcQHP = (C_NcQS @ h_NcSI).to(cs_NcQH.dtype).unflatten(-1, (n_heads, headdim))
    return cs_NcQH.exp()[..., None] * y_NcQHP
