"""The state of a run between two steps: everything the next step depends on.

A step is a function of this state and of the next items, so a run that is killed and resumed
arrives at the same weights as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bsmamba2.checkpoints.weights import load_weights
from bsmamba2.config.file import Config
from bsmamba2.config.model import ModelConfig, differences
from bsmamba2.config.training import TrainingConfig
from bsmamba2.errors import CheckpointError
from bsmamba2.models.bsmamba2 import BSMamba2

_COUNTERS = ("step", "items", "skipped", "validated")


@dataclass(kw_only=True)
class TrainingState:
    """Network, moving average, optimiser and position."""

    network: BSMamba2
    """The network being trained."""
    ema: AveragedModel
    """Its moving average, which is validated and exported."""
    optimizer: torch.optim.AdamW
    """The optimiser of the network's parameters."""
    step: int = 0
    """Completed steps."""
    items: int = 0
    """Items drawn so far, which is the number of the next one."""
    skipped: int = 0
    """Draws that failed because a file was unreadable."""
    validated: int = 0
    """Value of `items` at the last validation."""
    best: list[tuple[int, float]] = field(default_factory=list)
    """(step, uSDR) of the kept checkpoints, best first; -Inf if no validation song has a uSDR."""

    def to_dict(self) -> dict[str, Any]:
        """Returns tensors and plain values only, for `torch.load(weights_only=True)`."""
        return {
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **{name: getattr(self, name) for name in _COUNTERS},
            "best": [[step, usdr] for step, usdr in self.best],
        }

    def start_from(self, path: Path, model: ModelConfig) -> None:
        """Initialises network and moving average with the weights of a checkpoint.

        The checkpoint may be for another target or chunk length; training then fine-tunes it.

        Raises:
            BsmError: There is no such file.
            CheckpointError: It is damaged, or its network or spectrum differs from `model`.
        """
        tensors, metadata = load_weights(path)
        audio = replace(
            metadata.model.audio, target=model.audio.target, chunk_s=model.audio.chunk_s
        )
        theirs = replace(metadata.model, audio=audio)
        if theirs != model:
            raise CheckpointError(
                f"{path} has another network or spectrum than this configuration "
                f"({', '.join(differences(theirs, model))}): name the checkpoint's with --config."
            )
        for network in (self.network, self.ema.module):
            network.load_state_dict(tensors)

    def load(self, values: Mapping[str, Any], training: TrainingConfig) -> None:
        """Restores what `to_dict` returned, but with the optimiser's settings from `training`."""
        self.network.load_state_dict(values["network"])
        self.ema.load_state_dict(values["ema"])
        self.optimizer.load_state_dict(values["optimizer"])
        for group in self.optimizer.param_groups:
            group.update(betas=training.betas, weight_decay=training.weight_decay)
        for name in _COUNTERS:
            count = int(values[name])
            if not 0 <= count < 1 << 62:
                raise ValueError(name)
            setattr(self, name, count)
        self.best = [(int(step), float(usdr)) for step, usdr in values["best"]]


def new_state(config: Config, device: torch.device) -> TrainingState:
    """Returns the state before the first step, with random weights of the seed in `config`."""
    training = config.training
    torch.manual_seed(training.seed)
    network = BSMamba2(config.model, checkpoint_gradients=training.checkpoint_gradients)
    network.to(device).train()
    average = get_ema_multi_avg_fn(training.ema_decay)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=training.learning_rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
        fused=True,
    )
    ema = AveragedModel(network, multi_avg_fn=average)
    return TrainingState(network=network, ema=ema, optimizer=optimizer)
