"""The file that a user names as a model; if it is not one, the file or the command that helps.

Only `bsm import` reads checkpoints of PyTorch, such as `last.ckpt` of a training run.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

from bsmamba2.errors import BsmError, CheckpointError, quoted
from bsmamba2.system.files import existing_file, read_safetensors_header

CONFIG_KEY = "bsm.config"
"""Key of the metadata that every model file of ours has."""


def model_file(path: str | Path) -> Path:
    """Returns the path of a readable file that is not a checkpoint of PyTorch.

    Raises:
        FileError: There is no such file, or it cannot be read.
        CheckpointError: It is a folder of models or a checkpoint of PyTorch.
    """
    path = file_in_folder(path)
    if _is_pickled(path):
        raise CheckpointError(f"{path} is a PyTorch checkpoint: {_instead(path)}.")
    return path


def file_in_folder(path: str | Path) -> Path:
    """Returns the path of a readable file; for a folder of models, the error names one in it."""
    path = Path(path)
    if os.path.isdir(path):  # False for impossible names
        first = path / "best.safetensors", path / "ema.safetensors"
        if inside := _ours([*first, *sorted(path.glob("*.safetensors"))]):
            raise CheckpointError(f"{path} is a folder: name a file in it, such as {inside[0]}.")
    return existing_file(path)


def import_command(path: str | Path) -> str:
    """Returns the command, in quotes, that makes a checkpoint of another kind one of ours."""
    path = Path(path)
    target = path.with_suffix(".safetensors")
    if target.exists():
        target = path.with_suffix(".imported.safetensors")
    return f"'bsm import {quoted(path)} -o {quoted(target)}'"


def _is_pickled(path: Path) -> bool:
    """Whether a file is one of `torch.save`: a zip archive with NAME/data.pkl."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except Exception:  # of zipfile, for files of any other content
        return False
    return "data.pkl" in names and "constants.pkl" not in names  # which TorchScript adds


def _instead(path: Path) -> str:
    """Says which file beside a checkpoint holds its weights, or how to make one."""
    beside = _ours([path.with_suffix(f"{name}.safetensors") for name in ("", ".imported")])
    best = []
    if path.name == "last.ckpt":
        beside = _ours([path.with_name("ema.safetensors")]) or beside
        best = _ours([path.with_name("best.safetensors")])
    if beside:
        others = f", or {best[0]}, those of the best validation" if best else ""
        return f"name {beside[0]}, which holds its weights{others}"
    return f"run {import_command(path)} first"


def _ours(paths: Iterable[Path]) -> list[Path]:
    """Returns those that are .safetensors files of this package."""
    found = []
    for path in paths:
        try:
            if CONFIG_KEY in read_safetensors_header(existing_file(path))[1]:
                found.append(path)
        except BsmError:
            continue
    return found
