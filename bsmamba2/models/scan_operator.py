"""`bsm::bimamba2_scan`: the scan as one operator of PyTorch, for inference.

It is opaque to `torch.export`, which makes it one ONNX node. PyTorch's operators take tensors and
numbers alone, so the parameters are flat in its schema.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bsmamba2.formats.operator import INPUTS
from bsmamba2.models.cuda_scan import cuda_scan
from bsmamba2.models.scan import ScanParameters, bimamba2_scan_chunked

_SCHEMA = (
    f"({', '.join(f'Tensor {name}' for name in INPUTS)}, SymInt n_heads, SymInt d_state, "
    "float eps) -> Tensor"
)


def with_flat_arguments(scan: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A form of the scan, called with what the operator is called with."""

    def flat(zxbcdt: Tensor, *rest: Any) -> Tensor:
        *tensors, n_heads, d_state, eps = rest
        parameters = ScanParameters(*tensors)
        return scan(zxbcdt, parameters, n_heads=n_heads, d_state=d_state, eps=eps)

    return flat


def _empty(
    zxbcdt: Tensor, parameters: ScanParameters, *, n_heads: int, d_state: int, eps: float
) -> Tensor:
    """An output without values, to trace with."""
    d_inner = parameters.conv_weight.shape[1] - 2 * d_state
    return zxbcdt.new_empty(zxbcdt.shape[0], zxbcdt.shape[1], 2 * d_inner)


_registered = torch.library.custom_op(
    "bsm::bimamba2_scan",
    with_flat_arguments(bimamba2_scan_chunked),
    mutates_args=(),
    schema=_SCHEMA,
)
_registered.register_fake(with_flat_arguments(_empty))
_registered.register_kernel("cuda")(with_flat_arguments(cuda_scan))

SCAN_OPERATOR = torch.ops.bsm.bimamba2_scan.default
"""What it is in a traced graph."""


def bimamba2_scan(
    zxbcdt: Tensor, parameters: ScanParameters, *, n_heads: int, d_state: int, eps: float
) -> Tensor:
    """The operator: the chunked form, and on a GPU the CUDA kernel where there is one.

    Args, returns and raises: as `bsmamba2.models.scan.bimamba2_scan_chunked`.
    """
    y: Tensor = SCAN_OPERATOR(zxbcdt, *parameters, n_heads, d_state, eps)
    return y
