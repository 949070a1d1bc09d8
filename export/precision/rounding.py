"""A GPU's float16 emulated on a CPU: float32 products, every result rounded to float16.

ONNX Runtime's CPU provider has no float16 products. It casts to float32 and back, then drops the
casts that cancel, so that whole chains of operators run in float32 and an overflow within them goes
unnoticed (as the optimised graph of version 1.32 shows). PyTorch's own float16 on a CPU rounds
every value, but took 15 to 40 times as long as float32. Therefore the float16 network runs in
float32 here, and every value that it would keep as float16 is rounded to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from bsmamba2.models.folded import FoldedBSMamba2
from bsmamba2.models.scan import bimamba2_scan_chunked
from bsmamba2.models.scan_operator import SCAN_OPERATOR, with_flat_arguments

_aten = torch.ops.aten
_MOVES = (
    _aten.cat.default,
    _aten.clone.default,
    _aten.stack.default,
    _aten.constant_pad_nd.default,
)
"""Operations, besides casts and views, that only move values."""


class HalfRounding(TorchDispatchMode):
    """Runs operations on float16 tensors in float32 and rounds their results.

    This shows the effects of keeping values as float16: rounding, overflow to Inf, underflow to 0.
    It does not show those of accumulating products in float16, as a GPU library may choose to do.

    Attributes:
        largest: The largest float16 magnitude so far; Inf or NaN after an overflow.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = 0.0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs one operation."""
        kwargs = dict(kwargs or {})
        if func is SCAN_OPERATOR:
            with self:  # to see its operations one by one
                return with_flat_arguments(bimamba2_scan_chunked)(*args)
        floats = [leaf for leaf in tree_leaves((args, kwargs)) if _is_float(leaf)]
        halves = [tensor.dtype == torch.float16 for tensor in floats]
        if not any(halves) or func in _MOVES or func.is_view or func is _aten._to_copy.default:
            result = func(*args, **kwargs)
            return self._seen(result) if func is _aten._to_copy.default else result
        result = func(*tree_map(_widened, args), **tree_map(_widened, kwargs))
        # A float32 tensor makes the result float32; a single number does not.
        if all(half or not tensor.ndim for tensor, half in zip(floats, halves, strict=True)):
            result = self._seen(tree_map(_rounded, result))
        return result

    def _seen(self, result: Any) -> Any:
        for leaf in tree_leaves(result):
            if _is_float(leaf) and leaf.dtype == torch.float16:
                low, high = leaf.aminmax()
                self.largest = float(np.maximum(self.largest, max(-low.item(), high.item())))
        return result


class RoundedNetwork:
    """A folded float16 network in which every value is rounded to float16.

    Attributes:
        largest: The largest float16 magnitude of the last call; Inf or NaN after an overflow.
    """

    def __init__(self, network: FoldedBSMamba2) -> None:
        self._network = network
        self.largest = 0.0

    def __call__(self, spectrum: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the mask of a spectrum."""
        rounding = HalfRounding()
        with torch.inference_mode(), rounding:
            mask: NDArray[np.float32] = (
                self._network(torch.from_numpy(spectrum)).contiguous().numpy()
            )
        self.largest = rounding.largest
        return mask


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _widened(leaf: Any) -> Any:
    return leaf.float() if _is_float(leaf) and leaf.dtype == torch.float16 else leaf


def _rounded(leaf: Any) -> Any:
    return leaf.half() if _is_float(leaf) else leaf
