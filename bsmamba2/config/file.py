"""A whole configuration: every setting of the network and of its training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from bsmamba2.config.model import AudioConfig, ModelConfig, NetworkConfig
from bsmamba2.config.reading import read_assignment, read_section, read_yaml
from bsmamba2.config.training import DataConfig, LossConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole configuration, as in one YAML file: the model and how to train it."""

    audio: AudioConfig
    network: NetworkConfig
    data: DataConfig
    loss: LossConfig
    training: TrainingConfig

    def __post_init__(self) -> None:
        _ = self.model  # checks the bands against the bins

    @cached_property
    def model(self) -> ModelConfig:
        """The part that is stored with the weights."""
        return ModelConfig(audio=self.audio, network=self.network)


def load_config(name_or_path: str | Path) -> Config:
    """Reads a configuration by its name in the package or by its path.

    A file may name another configuration as its `base` and state only what differs.

    Raises:
        ConfigError: No such configuration, invalid YAML, or an unknown, missing or wrong value.
    """
    return read_section(Config, read_yaml(str(name_or_path)))


def override_config(config: Config, assignments: Iterable[str]) -> Config:
    """Returns a copy of a configuration with some values replaced.

    Args:
        config: The configuration, which is not changed.
        assignments: Each `section.key=value`, with the value as in YAML.

    Raises:
        ConfigError: A key is unknown, or a value does not fit its key.
    """
    values = asdict(config)
    for assignment in assignments:
        section, key, value = read_assignment(assignment)
        values.setdefault(section, {})[key] = value
    return read_section(Config, values)
