"""A block that scans in both directions, and a layer of two blocks: along time, along bands."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bsmamba2.config.model import NetworkConfig
from bsmamba2.models.mamba2 import Mamba2


class ResidualMamba2(nn.Module):
    """A mixer with norm and residual: x + M(RMSNorm(x))."""

    def __init__(self, net: NetworkConfig, *, reverse: bool) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(net.d_model, eps=net.norm_eps)
        self.mixer = Mamba2(net, reverse=reverse)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, d_model) to the same shape."""
        return x + self.mixer(self.norm(x))


class PointwiseMerge(nn.ConvTranspose1d):
    """Merges both directions at every step: P @ u + b.

    The published network uses a ConvTranspose1d of kernel size 1. Its names, weight layout
    (in, out, 1) and initial values are kept, but it is computed as the linear map that it is.
    """

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(N, L, in) to (N, L, out)."""
        return F.linear(x, self.weight[:, :, 0].T, self.bias)


class BidirectionalBlock(nn.Module):
    """Computes P @ [forward(x), backward(x)] + b + x; the directions share no weights."""

    def __init__(self, net: NetworkConfig) -> None:
        super().__init__()
        self.forward_blocks = nn.ModuleList([ResidualMamba2(net, reverse=False)])
        self.backward_blocks = nn.ModuleList([ResidualMamba2(net, reverse=True)])
        self.linear = PointwiseMerge(2 * net.d_model, net.d_model, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, d_model) to the same shape."""
        both = [self.forward_blocks[0](x), self.backward_blocks[0](x)]
        return self.linear(torch.cat(both, dim=-1)) + x


class DualPathLayer(nn.ModuleList):
    """A block along time, then a block along bands."""

    def __init__(self, net: NetworkConfig, *, checkpoint_gradients: bool) -> None:
        super().__init__([BidirectionalBlock(net), BidirectionalBlock(net)])
        self.checkpoint_gradients = checkpoint_gradients

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, bands, d_model) to the same shape."""
        time, band = self
        x_BKTD = x.transpose(1, 2)
        x_BKTD = self._run(time, x_BKTD.flatten(0, 1)).view_as(x_BKTD)
        x_BTKD = x_BKTD.transpose(1, 2)
        return self._run(band, x_BTKD.flatten(0, 1)).view_as(x_BTKD)

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.checkpoint_gradients and torch.is_grad_enabled():
            result: Tensor = checkpoint(block, x, use_reentrant=False)
        else:
            result = block(x)
        return result
