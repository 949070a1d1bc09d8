"""What a network can be loaded from; checked here without importing torch, which takes seconds."""

from __future__ import annotations

from pathlib import Path

from bsmamba2.config.file import Config, load_config
from bsmamba2.config.reading import config_names
from bsmamba2.errors import CheckpointError
from bsmamba2.formats.model_files import model_file


def check_source(source: str | Path) -> Config | None:
    """Checks the name of a network: a `.safetensors` checkpoint, or a configuration.

    Returns:
        The configuration, or None for a checkpoint.

    Raises:
        BsmError: There is no such file, it is of another kind, or the configuration is invalid.
    """
    source = Path(source)
    if source.suffix == ".safetensors":
        model_file(source)
        return None
    if str(source) not in config_names() and source.suffix not in (".yaml", ".yml"):
        if source.exists() or source.suffix:
            model_file(source)
        raise CheckpointError(
            f"{source} is not a model: name a .safetensors checkpoint, or a configuration "
            f"({', '.join(config_names())}) for random weights."
        )
    return load_config(source)
