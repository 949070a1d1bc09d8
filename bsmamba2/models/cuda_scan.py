"""The scan operator on a GPU, for inference, with the kernel of `plugins/cuda`.

The library is the one that the environment variable BSM_SCAN_LIBRARY names, or the one that
`bsm plugin build` left in the cache; a forward pass never builds it. Where the library or the GPU
does not support a call, the chunked form computes it, with one line in the log for each reason.
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
"""Environment variable that names a library to use instead of the cached one."""
_ALIGNMENT = 16  # bytes; PyTorch aligns its allocations to more
_DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def cuda_scan(
    zxbcdt: Tensor,
    parameters: ScanParameters,
    *,
    n_heads: int,
    d_state: int,
    eps: float,
) -> Tensor:
    """Runs the scan with the library where possible, otherwise in the chunked form.

    Arguments and result are those of `bsmamba2.models.scan.bimamba2_scan_chunked`, which is
    always used for float64.

    Raises:
        ValueError: The sizes do not fit each other, or the inputs are on several devices.
        PluginError: BSM_SCAN_LIBRARY does not name a library, or CUDA failed.
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
    """Returns the library to scan with, or None, with a line in the log, if there is none.

    The search happens once per process, and again when BSM_SCAN_LIBRARY changes.

    Raises:
        PluginError: BSM_SCAN_LIBRARY does not name a library.
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
        reason = "The scan kernel is not built: run 'bsm plugin build'."
    except BsmError as error:
        reason = str(error)
    _explain(reason)
    return None


def _explain(reason: str) -> None:
    warn_once(logger, f"{reason} PyTorch's chunked form is used instead, which is much slower.")


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
    """Runs the scan with a library, on the current stream of the tensors' device.

    The convolution's weights are rounded to the type of `zxbcdt`; steps, decays and skips are
    float32. Nothing synchronises, and memory comes from PyTorch's allocator, so that a CUDA graph
    can capture the call. An emulated library takes CPU tensors.

    Args:
        library: A library whose kernels run on the tensors' device.
        zxbcdt: (N, L, 2 W) float32, float16 or bfloat16; any strides.
        parameters: Parameters of both directions, with 4 taps.
        n_heads: H.
        d_state: S.
        eps: Added to the mean square of the gated output.
        out: (N, L, 2 I), contiguous, to write into; None allocates it. For tests.

    Returns:
        (N, L, 2 I), in the type of `zxbcdt`.

    Raises:
        ValueError: The sizes do not fit each other, or the inputs are on several devices.
        ScanError: The library or CUDA refuses the call.
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
    """Returns the inputs as the library needs them: contiguous, typed, all on one device."""
    inputs = dict(zip(INPUTS, (zxbcdt, *parameters), strict=True))
    for name, tensor in inputs.items():
        if tensor.device != zxbcdt.device:  # another device's address would crash the process
            raise ValueError(f"{name} is on {tensor.device} and zxbcdt on {zxbcdt.device}")
        dtype = zxbcdt.dtype if name in SIGNAL_INPUTS else torch.float32
        inputs[name] = tensor.to(dtype).contiguous()
    for name in ("conv_weight", "conv_bias"):
        if inputs[name].data_ptr() % _ALIGNMENT:  # a view into a larger tensor
            inputs[name] = inputs[name].clone()
    return inputs


@contextlib.contextmanager
def _current_stream(device: torch.device) -> Iterator[int]:
    """Makes a device the current one and yields its stream as a cudaStream_t; 0 on a CPU."""
    if device.type != "cuda":
        yield 0
        return
    with torch.cuda.device(device):
        yield torch.cuda.current_stream(device).cuda_stream
