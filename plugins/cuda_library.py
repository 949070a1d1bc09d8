"""libbsm_scan from Python, by ctypes: the caller passes addresses, the library returns a status.

Depends on neither torch nor CuPy nor NumPy: the caller passes the addresses of arrays in device
memory, whatever library owns them. `include/bsm_scan.h` documents each field.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from bsmamba2.errors import PluginError
from bsmamba2.formats.operator import INPUTS

ABI = 1
"""BSM_SCAN_ABI of the header that this file matches."""
DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2}
"""BsmDtype by the names that NumPy and PyTorch use."""


class Status(IntEnum):
    """The header's BsmStatus."""

    OK = 0
    BAD_STRUCT = 1
    NULL_POINTER = 2
    BAD_DTYPE = 3
    BAD_SHAPE = 4
    BAD_N_HEADS = 5
    BAD_HEADDIM = 6
    BAD_D_STATE = 7
    BAD_D_CONV = 8
    BAD_EPS = 9
    MISALIGNED = 10
    SMALL_WORKSPACE = 11
    OLD_GPU = 12
    NO_KERNEL = 13
    OLD_DRIVER = 14
    NO_DEVICE = 15
    CUDA_ERROR = 16


class ScanError(PluginError):
    """The library or CUDA refused a call.

    Attributes:
        status: A `Status`, or a plain number if a newer library has more of them.
    """

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status

    @property
    def is_unsupported(self) -> bool:
        """Whether the call is valid, but this library or this machine cannot run it."""
        return self.status in _UNSUPPORTED


_UNSUPPORTED = {
    Status.BAD_DTYPE,
    Status.BAD_N_HEADS,
    Status.BAD_HEADDIM,
    Status.BAD_D_STATE,
    Status.BAD_D_CONV,
    Status.OLD_GPU,
    Status.NO_KERNEL,
    Status.OLD_DRIVER,
    Status.NO_DEVICE,
}


@dataclass(frozen=True, kw_only=True)
class ScanSizes:
    """The sizes and options of a call."""

    n_sequences: int
    """N."""
    length: int
    """L, steps per sequence."""
    n_heads: int
    """H."""
    headdim: int
    """P, channels per head."""
    d_state: int
    """S, state size of a channel."""
    d_conv: int = 4
    """Taps of the convolution."""
    eps: float = 1e-5
    """Added to the mean square of a row."""
    dtype: str = "float32"
    """Type of all arrays except dt_bias, A and D (float32): one of DTYPES."""


@dataclass(frozen=True, kw_only=True)
class ScanArrays:
    """Device addresses of a call's contiguous arrays, with the shapes that the header gives."""

    zxbcdt: int
    conv_weight: int
    conv_bias: int
    dt_bias: int
    A: int
    D: int
    y: int


def load_library(path: Path, function: str, version: int, remedy: str) -> ctypes.CDLL:
    """Loads a scan library and checks the version of its interface.

    Args:
        path: The library's file.
        function: The name of its function that returns the version.
        version: The version that this package needs.
        remedy: The command for the user, for the sentence, if this is not the right library.

    Raises:
        PluginError: It does not load, is not a scan library, or has another version.
    """
    try:
        library = ctypes.CDLL(str(path.absolute()))
        abi = library[function]
    except (OSError, AttributeError) as error:
        raise PluginError(
            f"{path} cannot be loaded as a scan library: {error}; {remedy}."
        ) from error
    abi.argtypes, abi.restype = (), ctypes.c_int
    if (found := abi()) != version:
        raise PluginError(
            f"{path} has version {found} of the scan's interface, but this bsmamba2 needs version "
            f"{version}; {remedy}."
        )
    return library


_ARRAYS = (*INPUTS, "y", "workspace")


class _BsmScan(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        *((name, ctypes.c_void_p) for name in _ARRAYS),
        ("workspace_bytes", ctypes.c_size_t),
        ("n_sequences", ctypes.c_int64),
        ("length", ctypes.c_int64),
        ("n_heads", ctypes.c_int32),
        ("headdim", ctypes.c_int32),
        ("d_state", ctypes.c_int32),
        ("d_conv", ctypes.c_int32),
        ("eps", ctypes.c_float),
        ("dtype", ctypes.c_int32),
    )


class ScanLibrary:
    """A loaded libbsm_scan; safe to use from several threads.

    Attributes:
        path: The library's file.
    """

    def __init__(self, path: str | Path) -> None:
        """Loads the library; no CUDA call is made.

        Raises:
            PluginError: There is no such file, it is not a scan library, or has another version.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise PluginError(f"No such scan library: {path}; run 'bsm plugin build'.")
        library = load_library(self.path, "bsm_scan_abi", ABI, "run 'bsm plugin build'")
        self._library, pointer = library, ctypes.POINTER(_BsmScan)
        library.bsm_scan_workspace.argtypes = (pointer, ctypes.POINTER(ctypes.c_size_t))
        library.bsm_scan_enqueue.argtypes = (pointer, ctypes.c_void_p)
        library.bsm_scan_status_text.argtypes = (ctypes.c_int,)
        library.bsm_scan_status_text.restype = ctypes.c_char_p
        library.bsm_scan_cuda_error.restype = ctypes.c_char_p

    def workspace_bytes(self, sizes: ScanSizes) -> int:
        """Bytes of workspace that `enqueue` needs on any device; grows with the sizes.

        Raises:
            ScanError: The library does not support these sizes.
        """
        call, needed = _call(sizes), ctypes.c_size_t()
        status = self._library.bsm_scan_workspace(ctypes.byref(call), ctypes.byref(needed))
        self._check(status, sizes, call)
        return needed.value

    def enqueue(
        self,
        sizes: ScanSizes,
        arrays: ScanArrays,
        *,
        workspace: int,
        workspace_bytes: int,
        stream: int = 0,
    ) -> None:
        """Enqueues a scan on a stream of the current device, and does not wait for it.

        Args:
            sizes: The sizes of the arrays; the library cannot check that they are correct.
            arrays: Device addresses; the arrays must live until the stream has run the scan.
            workspace: Device address of the workspace.
            workspace_bytes: Size of the workspace, at least what `workspace_bytes` returns.
            stream: A cudaStream_t; 0 is the default stream.

        Raises:
            ScanError: The library does not support the sizes, addresses or device.
        """
        call = _call(sizes)
        for name, address in vars(arrays).items():
            setattr(call, name, address)
        call.workspace, call.workspace_bytes = workspace, workspace_bytes
        self._check(self._library.bsm_scan_enqueue(ctypes.byref(call), stream), sizes, call)

    def _check(self, status: int, sizes: ScanSizes, call: _BsmScan) -> None:
        if status == Status.OK:
            return
        text = self._library.bsm_scan_status_text(status).decode().rstrip(".")
        detail = _detail(status, sizes, call)
        if status == Status.CUDA_ERROR:
            detail = self._library.bsm_scan_cuda_error().decode()
        raise ScanError(f"Scan: {text}{f' ({detail})' if detail else ''}.", status)


def _call(sizes: ScanSizes) -> _BsmScan:
    """The C struct without arrays; an unknown dtype becomes -1, which the library refuses."""
    values = vars(sizes) | {"dtype": DTYPES.get(sizes.dtype, -1)}
    return _BsmScan(size=ctypes.sizeof(_BsmScan), **values)


def _detail(status: int, sizes: ScanSizes, call: _BsmScan) -> str:
    """The values that caused a refusal."""
    if status in (Status.NULL_POINTER, Status.MISALIGNED):
        return ", ".join(f"{name} at {getattr(call, name) or 0:#x}" for name in _ARRAYS)
    if status == Status.SMALL_WORKSPACE:
        return f"workspace_bytes {call.workspace_bytes}"
    if status == Status.BAD_SHAPE:
        return f"n_sequences {sizes.n_sequences}, length {sizes.length}"
    for name, value in vars(sizes).items():
        if status == Status.__members__.get(f"BAD_{name.upper()}"):
            return f"{name} {value}"
    return ""
