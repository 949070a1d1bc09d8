"""The scan operator on a GPU, for inference, by the kernel of `plugins/cuda`.

The library comes from the environment variable BSM_SCAN_LIBRARY or from what `bsm plugin build`
left in the cache; a forward pass never builds it. What the library or the GPU cannot do goes to
the chunked form, with one line in the log for each reason.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterator

import torch
from torch import Tensor

from bsmamba2.errors import BsmError, warn_once
from bsmamba2.formats.operator import INPUTS, SIGNAL_INPUTS
from bsmamba2.models.scan import ScanParameters, bimamba2_scan_chunked, scan_sizes
from bsmamba2.plugins.cuda_library import ScanArrays, ScanError, ScanLibrary, ScanSizes

logger = logging.getLogger(__name__)

LIBRARY_VARIABLE = "BSM_SCAN_LIBRARY"
"""Environment variable that names a library to take in place of the cached one."""
_ALIGNMENT = 16  # bytes; what PyTorch allocates has more
_DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def cuda_scan(
    zxbcdt: Tensor,
    parameters: ScanParameters,
    *,
    n_heads: int,
    d_state: int,
    eps: float,
) -> Tensor:
    """The operator by the library where it can, else in the chunked form.

    Args and returns: as `bsmamba2.models.scan.bimamba2_scan_chunked`. Float64 is always computed
    by that.

    Raises:
        ValueError: Sizes that do not fit each other, or inputs on several devices.
        PluginError: BSM_SCAN_LIBRARY names no library, or CUDA failed.
    """
    if zxbcdt.dtype in _DTYPES and (library := scan_library()) is not None:
        try:
            return library_scan(
                library, zxbcdt, parameters, n_heads=n_heads, d_state=d_state, eps=eps
            )
        except ScanError as error:
            if not error.is_unsupported:
                raise
            _explain(str(error))
    return bimamba2_scan_chunked(zxbcdt, parameters, n_heads=n_heads, d_state=d_state, eps=eps)


def scan_library() -> ScanLibrary | None:
    """The library that scans here, or None, with a line in the log, where there is none.

    It is looked for once a process, and again when BSM_SCAN_LIBRARY changes.

    Raises:
        PluginError: BSM_SCAN_LIBRARY names no library.
    """
    named = os.environ.get(LIBRARY_VARIABLE)
    return _cached_library() if not named else _load(named)


@functools.cache
def _load(path: str) -> ScanLibrary:
    return ScanLibrary(path)


@functools.cache
def _cached_library() -> ScanLibrary | None:
    from bsmamba2.plugins.build import find_libraries

    try:
        if libraries := find_libraries():
            return ScanLibrary(libraries.scan)
        reason = "The kernel of the scan is not built: run 'bsm plugin build'."
    except BsmError as error:
        reason = str(error)
    _explain(reason)
    return None


def _explain(reason: str) -> None:
    warn_once(logger, f"{reason} The scan takes PyTorch's chunked form instead, many times slower.")


def library_scan(
    library: ScanLibrary,
    zxbcdt: Tensor,
    parameters: ScanParameters,
    *,
    n_heads: int,
    d_state: int,
    eps: float,
    out: Tensor | None = None,
) -> Tensor:
    """The operator by a library, on the current stream of the tensors' device.

    The convolution's weights are rounded to the type of `zxbcdt`, steps, decays and skips are
    float32. Nothing synchronises, and memory comes from PyTorch's allocator, so that a CUDA graph
    can capture it. A library of the emulation takes CPU tensors.

    Args:
        library: Its kernels run on the tensors' device.
        zxbcdt: (N, L, 2 W) float32, float16 or bfloat16; any strides.
        parameters: Of both directions, with 4 taps.
        n_heads: H.
        d_state: S.
        eps: Added to the mean square of the gated output.
        out: (N, L, 2 I), contiguous, to be written; None makes a new one. For tests.

    Returns:
        (N, L, 2 I) of the type of `zxbcdt`.

    Raises:
        ValueError: Sizes that do not fit each other, or inputs on several devices.
        ScanError: What the library or CUDA refuses.
    """
    sizes = scan_sizes(zxbcdt, parameters, n_heads, d_state)
    inputs = _marshalled(zxbcdt, parameters)
    y = zxbcdt.new_empty(*zxbcdt.shape[:2], 2 * sizes.d_inner) if out is None else out
    if y.numel() == 0:
        return y
    call = ScanSizes(
        n_sequences=zxbcdt.shape[0],
        length=zxbcdt.shape[1],
        n_heads=n_heads,
        headdim=sizes.headdim,
        d_state=d_state,
        d_conv=parameters.conv_weight.shape[-1],
        eps=eps,
        dtype=_DTYPES.get(zxbcdt.dtype, str(zxbcdt.dtype).removeprefix("torch.")),
    )
    with _current_stream(zxbcdt.device) as stream:
        needed = library.workspace_bytes(call)
        workspace = torch.empty(needed, dtype=torch.uint8, device=zxbcdt.device)
        arrays = ScanArrays(**{name: t.data_ptr() for name, t in inputs.items()}, y=y.data_ptr())
        library.enqueue(
            call,
            arrays,
            workspace=workspace.data_ptr(),
            workspace_bytes=needed,
            stream=stream,
        )
    return y


def _marshalled(zxbcdt: Tensor, parameters: ScanParameters) -> dict[str, Tensor]:
    """The inputs as the library takes them: contiguous, typed, all on one device."""
    inputs = dict(zip(INPUTS, (zxbcdt, *parameters), strict=True))
    for name, tensor in inputs.items():
        if tensor.device != zxbcdt.device:  # an address of another device would end the process
            raise ValueError(f"{name} is on {tensor.device} and zxbcdt on {zxbcdt.device}")
        dtype = zxbcdt.dtype if name in SIGNAL_INPUTS else torch.float32
        inputs[name] = tensor.to(dtype).contiguous()
    for name in ("conv_weight", "conv_bias"):
        if inputs[name].data_ptr() % _ALIGNMENT:  # a view into something larger
            inputs[name] = inputs[name].clone()
    return inputs


@contextlib.contextmanager
def _current_stream(device: torch.device) -> Iterator[int]:
    """Makes a device the current one; its stream as a cudaStream_t. A CPU has none: 0."""
    if device.type != "cuda":
        yield 0
        return
    with torch.cuda.device(device):
        yield torch.cuda.current_stream(device).cuda_stream
