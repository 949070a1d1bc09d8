"""Small things every command does with files: hash, write atomically, read a header."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bsmamba2.errors import CheckpointError, FileError
from bsmamba2.temporary import Partial, new_partial

_MAX_HEADER = 16 << 20  # bytes; ours has some 100 kB, and JSON takes 20 times its size in memory

_ATTEMPTS = 100  # to make a folder that others take away
_HEADER_ERRORS = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""Of JSON that is none, or that holds something else."""
_folders_lock = threading.Lock()
"""Held where folders are made and removed, so that threads take none from each other; and where the
process's umask is looked up, which is done by changing it."""
_made_folders: set[Path] = set()
"""Made for files that are not complete yet; the last one that fails takes them away."""


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def existing_file(path: str | Path, name: str | None = None) -> Path:
    """The path of a readable file; raises FileError with one sentence otherwise.

    Args:
        path: The file.
        name: What the sentence calls it, if not by its path.
    """
    path = Path(path)
    name = name or str(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # or a NUL in the name
        raise FileError(f"No such file: {name}.") from error
    except OSError as error:
        raise FileError(f"{name} cannot be read: {error.strerror}; name another file.") from error
    if stat.S_ISDIR(mode):
        raise FileError(f"{name} is a folder: name a file.")
    if not stat.S_ISREG(mode):
        raise FileError(f"{name} is not a regular file: save what comes out of it to one first.")
    if not os.access(path, os.R_OK):
        raise FileError(f"{name} cannot be read: check its permissions.")
    return path


def c_path(path: Path) -> Path | bytes:
    """A path as a C library takes it; on POSIX it need not be UTF-8."""
    return os.fsencode(path) if os.name == "posix" else path


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block succeeds.

    Missing folders are made. When the block raises, the temporary file is deleted and whatever
    had the final name before stays as it was.

    Raises:
        FileError: The folder cannot be made or written.
    """
    with atomic_paths([path]) as (partial,):
        yield partial


@contextlib.contextmanager
def atomic_paths(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """As `atomic_path` for several files that belong together: all take their names, or none.

    Folders that were made for them go, too, when the block raises. What killed processes left in
    the folders is taken away before (`temporary.py`).

    Raises:
        FileError: A folder cannot be made or written, or one of the paths is a folder.
    """
    partials: list[Partial] = []
    try:
        for path in paths:
            with _folders_lock:
                partials.append(_make_partial(path))
        yield [partial.path for partial in partials]
        with _folders_lock:
            _rename_all(partials, paths)
            _made_folders.difference_update(*(path.absolute().parents for path in paths))
    except OSError as error:
        names = " and ".join(str(path) for path in paths)
        raise FileError(f"Cannot write {names}: {error.strerror or error}.") from error
    finally:
        for partial in partials:
            partial.close()
        with _folders_lock:
            _remove_made_folders(paths)


def _remove_made_folders(paths: Sequence[Path]) -> None:
    """Takes away the empty folders above `paths` that were made for nothing."""
    above = {parent for path in paths for parent in path.absolute().parents}
    for folder in sorted(above & _made_folders, reverse=True):  # the deepest first
        with contextlib.suppress(OSError):  # others have something in it
            folder.rmdir()
            _made_folders.discard(folder)


def _make_partial(path: Path) -> Partial:
    """An empty temporary file beside `path`; notes the folders it made."""
    if path.is_dir():
        raise FileError(f"Cannot write {path}: a folder has that name.")
    attempts = _ATTEMPTS
    while True:
        try:
            missing = [folder for folder in path.absolute().parents if not folder.exists()]
            for folder in reversed(missing):
                folder.mkdir(exist_ok=True)
                _made_folders.add(folder)
            return new_partial(path.parent, path.suffix)
        except OSError as error:
            attempts -= 1
            if isinstance(error, FileNotFoundError) and attempts:
                continue  # another process has just taken away an empty folder
            reason = error.strerror or error
            raise FileError(f"Cannot write into {path.parent}: {reason}.") from error


def _rename_all(partials: Sequence[Partial], paths: Sequence[Path]) -> None:
    umask = os.umask(0)
    os.umask(umask)
    done: list[Path] = []
    try:
        for partial, path in zip(partials, paths, strict=True):
            partial.path.chmod(0o666 & ~umask)  # mkstemp makes files private
            partial.path.replace(path)
            done.append(path)
    except BaseException:  # Ctrl-C, too
        for path in done:
            path.unlink(missing_ok=True)
        raise


def read_safetensors_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes of a safetensors file's tensors and its metadata, without reading the tensors.

    Raises:
        CheckpointError: The file is no safetensors file or is truncated.
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
        except _HEADER_ERRORS as error:
            raise CheckpointError(
                f"{damaged}: its header cannot be read; copy or download it again."
            ) from error
    if path.stat().st_size < 8 + length + end:
        raise CheckpointError(f"{path} is truncated: copy or download it again.")
    return shapes, metadata
