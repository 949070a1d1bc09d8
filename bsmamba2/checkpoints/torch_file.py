"""Files of `torch.save`, read as data: the pickle by `pickle_data`, the numbers when asked for.

Two containers: a zip archive with `NAME/data.pkl` and one entry `NAME/data/KEY` a storage (since
torch 1.6), and a sequence of pickles followed by the storages (before).
"""

from __future__ import annotations

import functools
import io
import math
import mmap
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bsmamba2.checkpoints.pickle_data import read_pickle
from bsmamba2.checkpoints.pickle_values import StorageRef, TensorRef
from bsmamba2.errors import CheckpointError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_ZIP_ERRORS = (  # a wrong CRC is a BadZipFile
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    OSError,
    EOFError,
    KeyError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True, kw_only=True)
class TorchFile:
    """An open file of `torch.save`."""

    path: Path
    container: str
    """What the file is, in words."""
    data: Any
    """What was saved; see `pickle_values` for what stands for objects and tensors."""
    read_storage: Callable[[StorageRef], bytearray]

    def tensor(self, ref: TensorRef) -> torch.Tensor:
        """Reads a tensor; its own memory, contiguous.

        Raises:
            CheckpointError: The file ends early, or holds numbers of an unusual type.
        """
        if not ref.storage.dtype:
            raise CheckpointError(
                f"{self.path} has tensors of a type that no weights have: save float32."
            )
        dtype: torch.dtype = getattr(torch, ref.storage.dtype)
        if not math.prod(ref.shape):
            return torch.empty(ref.shape, dtype=dtype)
        last = ref.offset + sum((n - 1) * s for n, s in zip(ref.shape, ref.stride, strict=True))
        numbers = self.read_storage(ref.storage)
        if last >= ref.storage.count or len(numbers) != ref.storage.count * dtype.itemsize:
            raise _damaged(self.path)
        view = torch.frombuffer(numbers, dtype=dtype).as_strided(ref.shape, ref.stride, ref.offset)
        return view.clone(memory_format=torch.contiguous_format)


def open_torch_file(path: Path) -> TorchFile:
    """Opens a file of `torch.save`, either container, calling nothing that its pickle names.

    Raises:
        CheckpointError: No such file, damaged, or its pickle would call something.
    """
    with path.open("rb") as file:
        start = file.read(4)
    return _open_zip(path) if start == b"PK\x03\x04" else _open_legacy(path)


def _open_zip(path: Path) -> TorchFile:
    try:
        archive = zipfile.ZipFile(path)
        pickles = [n for n in archive.namelist() if n.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise CheckpointError(
                f"{path} is a zip archive but no PyTorch checkpoint: name another."
            )
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in archive.namelist():
            raise CheckpointError(f"{path} is a TorchScript module: save its state_dict instead.")
        if f"{root}byteorder" in archive.namelist():
            _require_little_endian(path, _stored(archive, f"{root}byteorder") == b"little")
        program = _stored(archive, pickles[0])
    except _ZIP_ERRORS as error:
        raise _damaged(path) from error

    @functools.lru_cache(maxsize=1)  # for tensors that are views of one storage
    def read_storage(storage: StorageRef) -> bytearray:
        try:
            return bytearray(_stored(archive, f"{root}data/{storage.key}"))
        except _ZIP_ERRORS as error:
            raise _damaged(path) from error

    data = read_pickle(io.BytesIO(program), path)
    return TorchFile(path=path, container="PyTorch zip", data=data, read_storage=read_storage)


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry's bytes; torch compresses nothing, so a small file cannot swell in memory."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError("compressed")
    return archive.read(info)


def _open_legacy(path: Path) -> TorchFile:
    with path.open("rb") as file:
        if not file.read(1):
            raise CheckpointError(f"{path} is empty: download it again.")
        program = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if read_pickle(program, path) != _LEGACY_MAGIC:
        raise CheckpointError(
            f"{path} is a pickle but no PyTorch checkpoint: save the state_dict with torch.save."
        )
    protocol, system = read_pickle(program, path), read_pickle(program, path)
    if protocol != _LEGACY_PROTOCOL or not isinstance(system, dict):
        raise _damaged(path)
    _require_little_endian(path, system.get("little_endian") is True)
    storages: dict[str, StorageRef] = {}
    data = read_pickle(program, path, storages)
    positions = _legacy_positions(program, path, storages)

    @functools.lru_cache(maxsize=1)
    def read_storage(storage: StorageRef) -> bytearray:
        if storage.key not in positions:
            raise _damaged(path)
        start, end = positions[storage.key]
        return bytearray(program[start:end])

    return TorchFile(path=path, container="legacy PyTorch", data=data, read_storage=read_storage)


def _legacy_positions(
    program: mmap.mmap, path: Path, storages: dict[str, StorageRef]
) -> dict[str, tuple[int, int]]:
    """Start and end of each storage: an int64 count, then the numbers, in the order of a list."""
    keys = read_pickle(program, path)
    position = program.tell()
    positions = {}
    for key in keys if isinstance(keys, list) else [None]:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None or not storage.dtype or position + 8 > len(program):
            raise _damaged(path)
        (count,) = struct.unpack_from("<q", program, position)
        end = position + 8 + storage.count * getattr(torch, storage.dtype).itemsize
        if count != storage.count or end > len(program):
            raise _damaged(path)
        positions[storage.key] = position + 8, end
        position = end
    return positions


def _require_little_endian(path: Path, little: bool) -> None:
    if not little:
        raise CheckpointError(
            f"{path} was written on a big-endian machine: save it as safetensors."
        )


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is not a PyTorch checkpoint or is damaged: download it again.")
