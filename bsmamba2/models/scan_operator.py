"""`bsm::bimamba2_scan`: the scan as one PyTorch operator, for inference.

It is opaque to `torch.export`, so that it becomes one ONNX node. PyTorch operators take only
tensors and numbers, so its schema lists the parameters one by one.
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
    """Wraps a form of the scan so that it takes the operator's arguments."""

    def flat(zxbcdt: Tensor, *rest: Any) -> Tensor:
        *tensors, n_heads, d_state, eps = rest
        parameters = ScanParameters(*tensors)
        return scan(zxbcdt, parameters, n_heads=n_heads, d_state=d_state, eps=eps)

    return flat


def _empty(
    zxbcdt: Tensor, parameters: ScanParameters, *, n_heads: int, d_state: int, eps: float
) -> Tensor:
    """Returns an output without values, for tracing."""
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
"""The operator as it appears in a traced graph."""


def bimamba2_scan(
    zxbcdt: Tensor, parameters: ScanParameters, *, n_heads: int, d_state: int, eps: float
) -> Tensor:
    """Runs the operator: the CUDA kernel on a GPU where there is one, otherwise the chunked form.

    Arguments, result and errors are those of `bsmamba2.models.scan.bimamba2_scan_chunked`.
    """
    y: Tensor = SCAN_OPERATOR(zxbcdt, *parameters, n_heads, d_state, eps)
    return y
