"""What a network can be loaded from; checked here without importing torch, which takes seconds."""

from __future__ import annotations

from pathlib import Path

from bsmamba2.config.file import load_config
from bsmamba2.config.reading import config_names
from bsmamba2.errors import CheckpointError
from bsmamba2.system.files import existing_file


def check_source(source: str | Path) -> None:
    """Checks the name of a network: a `.safetensors` checkpoint, or a configuration.

    Raises:
        BsmError: There is no such file, it is of another kind, or the configuration is invalid.
    """
    source = Path(source)
    if source.suffix == ".safetensors":
        existing_file(source)
        return
    if source.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise CheckpointError(
            f"{source} is a checkpoint of another program: "
            f"run 'bsm import {source} -o {source.with_suffix('.safetensors')}' first."
        )
    if str(source) not in config_names() and source.suffix not in (".yaml", ".yml"):
        raise CheckpointError(
            f"{source} is not a model: name a .safetensors checkpoint, or a configuration "
            f"({', '.join(config_names())}) for random weights."
        )
    load_config(source)
