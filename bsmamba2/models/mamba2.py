"""The Mamba2 mixer of one direction."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bsmamba2.config.model import NetworkConfig
from bsmamba2.models.kernels import scan_direction
from bsmamba2.models.scan import ScanParameters


class Mamba2(nn.Module):
    """Input projection, scan of one direction, output projection (Dao and Gu, arXiv 2405.21060).

    With `reverse` it scans from the end of the sequence; input and output keep their order.
    """

    def __init__(self, net: NetworkConfig, *, reverse: bool) -> None:
        super().__init__()
        self.net = net
        self.reverse = reverse
        self.dt_bias = nn.Parameter(_initial_dt_bias(net))
        self.A_log = nn.Parameter(torch.empty(net.n_heads).uniform_(*net.a_init).log())
        self.D = nn.Parameter(torch.ones(net.n_heads))
        self.in_proj = nn.Linear(net.d_model, net.d_in_proj, bias=False)
        self.conv1d = nn.Conv1d(net.d_xbc, net.d_xbc, net.d_conv, groups=net.d_xbc)
        self.norm = nn.RMSNorm(net.d_inner, eps=net.norm_eps)
        self.out_proj = nn.Linear(net.d_inner, net.d_model, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        """(N, L, d_model) to the same shape."""
        assert self.conv1d.bias is not None
        A = -self.A_log.exp()
        y_NLI = scan_direction(
            self.in_proj(u),
            ScanParameters(self.conv1d.weight[:, 0], self.conv1d.bias, self.dt_bias, A, self.D),
            d_state=self.net.d_state,
            eps=self.net.norm_eps,
            reverse=self.reverse,
        )
        # The scan normalises without the norm's weight, which is cheaper to apply to the matrix.
        return F.linear(y_NLI, self.out_proj.weight * self.norm.weight)


def _initial_dt_bias(net: NetworkConfig) -> Tensor:
    """Returns the inverse softplus of log-uniform steps, mamba_ssm's initial values."""
    low, high = (math.log(value) for value in net.dt_init)
    dt = torch.empty(net.n_heads).uniform_(low, high).exp().clamp(min=net.dt_init_floor)
    return dt + torch.log(-torch.expm1(-dt))
