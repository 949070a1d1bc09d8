"""When things happen: the learning rate of a step, the last step, the validations."""

from __future__ import annotations

import math

from bsmamba2.config.file import Config
from bsmamba2.config.training import TrainingConfig


def total_steps(config: Config, processes: int) -> int:
    """Steps of the whole training, whichever of epochs and steps ends first."""
    items = config.training.max_epochs * config.data.items_per_epoch
    steps = -(-items // (config.training.items_per_step * processes))
    return min(steps, config.training.max_steps or steps)


def learning_rate(step: int, total: int, training: TrainingConfig) -> float:
    """Of the step with number `step`, from 0 to total - 1."""
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    if training.schedule == "constant":
        return training.learning_rate
    done = (step - training.warmup_steps) / max(1, total - training.warmup_steps)
    return training.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def validation_period(items: int, config: Config) -> int:
    """How many validations are due after so many items."""
    return items // (config.data.items_per_epoch * config.training.validation_every)
