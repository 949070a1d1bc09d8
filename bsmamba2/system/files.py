"""Small file functions that every command needs: hash, check, read a header."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from pathlib import Path
from typing import Any

from bsmamba2.errors import CheckpointError, FileError

_MAX_HEADER = 16 << 20  # bytes; ours are about 100 kB, and parsed JSON takes 20 times its size
_NO_HEADER = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
"""What parsing raises if a header is not JSON, or is JSON with other content."""


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def existing_file(path: str | Path, name: str | None = None, *, what: str = "file") -> Path:
    """Returns the path of a readable file; raises FileError otherwise.

    Args:
        path: The file.
        name: What messages call it instead of its path.
        what: What a message says is missing.
    """
    name = name or str(path)
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # or a NUL in the name
        if name.startswith(("https://", "http://")):
            raise FileError(f"{name} is a URL: download the file first.") from error
        raise FileError(f"No such {what}: {name}.") from error
    except OSError as error:
        raise FileError(f"{name} cannot be read: {error.strerror}; name another file.") from error
    if stat.S_ISDIR(mode):
        raise FileError(f"{name} is a folder: name a file.")
    if not stat.S_ISREG(mode):
        raise FileError(f"{name} is not a regular file: save its content to one first.")
    if not os.access(path, os.R_OK):
        raise FileError(f"{name} cannot be read: check its permissions.")
    return path


def c_path(path: Path) -> Path | bytes:
    """Converts a path for a C library; on POSIX it need not be UTF-8."""
    return os.fsencode(path) if os.name == "posix" else path


def read_safetensors_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Reads a safetensors file's tensor shapes and metadata, without reading the tensors.

    Raises:
        CheckpointError: The file is not a safetensors file or is truncated.
    """
    damaged = f"{path} is not a safetensors file or is damaged"
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _MAX_HEADER + 1
        if length > min(_MAX_HEADER, path.stat().st_size):
            raise CheckpointError(
                f"{damaged}: its header would be {length} bytes long; copy or download it again."
            )
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            metadata = dict(header.pop("__metadata__", {}))
            if not all(type(value) is str for value in metadata.values()):
                raise TypeError("metadata")
            shapes = {name: tuple(map(int, entry["shape"])) for name, entry in header.items()}
            end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        except _NO_HEADER as error:
            raise CheckpointError(
                f"{damaged}: its header cannot be read; copy or download it again."
            ) from error
    if path.stat().st_size < 8 + length + end:
        raise CheckpointError(f"{path} is truncated: copy or download it again.")
    return shapes, metadata
