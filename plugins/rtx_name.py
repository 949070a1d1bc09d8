"""Provides the file name under which TensorRT-RTX opens its own library.

The ONNX parser of TensorRT-RTX opens `libtensorrt_rtx.so` when it adds a plugin of version 3, and
aborts the process if it is missing. The wheel has only `libtensorrt_rtx.so.1`.

The system's loader reuses an open library whose DT_SONAME is the requested name. So this module
opens a library with that name and no code, whose only dependency is the real library; there the
parser finds its symbols. It is some 500 bytes long and needs no compiler, and its file is deleted
once open. Nothing is written beside TensorRT-RTX, and there is no need for LD_LIBRARY_PATH,
which the loader reads only when a process starts.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import tempfile
from pathlib import Path

from bsmamba2.errors import PluginError

_NAME = "libtensorrt_rtx.so"
_MACHINES = {"x86_64": 62, "aarch64": 183}  # e_machine
_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK = 1, 2, 0x6474E551
_READ_WRITE = 6  # no segment is executable, so a folder mounted noexec will do
_DT_NULL, _DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB = 0, 1, 4, 5, 6
_DT_STRSZ, _DT_SYMENT, _DT_SONAME = 10, 11, 14
_LARGEST_PAGE = 0x10000  # bytes; the largest page that these machines use


def provide_rtx_name() -> None:
    """Makes `dlopen("libtensorrt_rtx.so")` return the TensorRT-RTX that this process has loaded.

    Does nothing if that already works. Must be called before a graph is parsed.

    Raises:
        PluginError: TensorRT-RTX is not loaded, or the name cannot be provided.
    """
    if _is_open(_NAME):
        return
    library = _loaded_library()
    advice = f"link {library} as {_NAME} in a folder and put that on LD_LIBRARY_PATH"
    try:
        with tempfile.NamedTemporaryFile(prefix="bsmamba2-", suffix=f"-{_NAME}") as file:
            file.write(shared_library(_NAME, str(library)))
            file.flush()
            ctypes.CDLL(file.name)  # ctypes never closes it
    except (OSError, KeyError) as error:
        raise PluginError(
            f"The name {_NAME}, which TensorRT-RTX needs, cannot be provided ({error}): {advice}."
        ) from error
    if not _is_open(_NAME):
        raise PluginError(f"This system's loader does not find {_NAME} by name: {advice}.")


def shared_library(name: str, dependency: str) -> bytes:
    """Returns the bytes of an ELF library without code.

    Args:
        name: Its DT_SONAME.
        dependency: Name or path of the library that it needs.

    Raises:
        KeyError: The machine is neither x86-64 nor AArch64.
    """
    strings = b"\0" + name.encode() + b"\0" + os.fsencode(dependency) + b"\0"
    entries, segments = 8, 3
    dynamic = 64 + 56 * segments  # after the ELF header and the program headers
    symbols = dynamic + 16 * entries
    table = symbols + 24  # one symbol, the null one
    text = table + 16
    end = text + len(strings)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64 bits, little-endian, version 1
        3,  # ET_DYN
        _MACHINES[platform.machine()],
        *(1, 0, 64, 0, 0, 64, 56, segments, 0, 0, 0),
    )
    headers = (
        _segment(_PT_LOAD, 0, end, _LARGEST_PAGE)
        + _segment(_PT_DYNAMIC, dynamic, 16 * entries, 8)
        + _segment(_PT_GNU_STACK, 0, 0, 16)  # otherwise the loader makes the stack executable
    )
    tags = (
        (_DT_SONAME, 1),
        (_DT_NEEDED, 2 + len(name.encode())),
        (_DT_HASH, table),
        (_DT_STRTAB, text),
        (_DT_SYMTAB, symbols),
        (_DT_STRSZ, len(strings)),
        (_DT_SYMENT, 24),
        (_DT_NULL, 0),
    )
    hash_table = struct.pack("<4I", 1, 1, 0, 0)  # one bucket, one symbol, an empty chain
    body = b"".join(struct.pack("<QQ", *tag) for tag in tags)
    return header + headers + body + bytes(24) + hash_table + strings


def _segment(kind: int, start: int, size: int, alignment: int) -> bytes:
    """A program header whose addresses are offsets in the file."""
    return struct.pack("<IIQQQQQQ", kind, _READ_WRITE, start, start, start, size, size, alignment)


def _is_open(name: str) -> bool:
    try:
        ctypes.CDLL(name, mode=os.RTLD_LAZY | os.RTLD_NOLOAD)
    except OSError:
        return False
    return True


def _loaded_library() -> Path:
    """Returns the file of the TensorRT-RTX that this process has loaded."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and Path(fields[5]).name.startswith(f"{_NAME}."):
            return Path(fields[5])
    raise PluginError("TensorRT-RTX is not loaded: import tensorrt_rtx first.")
