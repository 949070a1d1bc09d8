"""One training step: draw batches, forward and backward passes, clip, update, moving average.

The number of steps and the learning rate schedule are defined here too.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from bsmamba2.config.file import Config
from bsmamba2.config.training import TrainingConfig
from bsmamba2.data.mixing import TrainingBatch
from bsmamba2.errors import DataError, ResourceError, TrainingError
from bsmamba2.models.estimation import estimate_target
from bsmamba2.training.distributed import Processes
from bsmamba2.training.loader import FEWER_WORKERS
from bsmamba2.training.loss import separation_loss
from bsmamba2.training.state import TrainingState

logger = logging.getLogger(__name__)


def total_steps(config: Config, processes: int) -> int:
    """Counts the steps of the training: up to max_epochs or max_steps, whichever comes first."""
    items = config.training.max_epochs * config.data.items_per_epoch
    steps = -(-items // (config.training.items_per_step * processes))
    return min(steps, config.training.max_steps or steps)


def learning_rate(step: int, total: int, training: TrainingConfig) -> float:
    """Returns the learning rate of a step; steps are counted from 0 to total - 1."""
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    if training.schedule == "constant":
        return training.learning_rate
    done = (step - training.warmup_steps) / max(1, total - training.warmup_steps)
    return training.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class NotFiniteError(TrainingError):
    """A loss, gradient or weight is NaN or infinite; the failed step did not change the state."""

    def __init__(self, what: str, step: int, sources: list[str]) -> None:
        super().__init__(f"{what} is NaN or infinite at step {step}.")
        self.what = what
        self.step = step
        self.sources = sources


class Stepper:
    """Carries out steps, which update a `TrainingState`."""

    def __init__(self, state: TrainingState, config: Config, processes: Processes) -> None:
        """Takes the state to update."""
        self._state = state
        self._config = config
        self._processes = processes
        if config.training.compile:
            for layer in state.network.layers:
                for block in layer.children():
                    block.compile()  # blocks of equal shapes share compiled code
        self._network = processes.wrap(state.network)
        self._total = total_steps(config, processes.count)
        self._skipped = state.skipped  # plus this process's unreadable draws in the current step

    def step(
        self, batches: Iterator[TrainingBatch], *, signal: Callable[[], int] = lambda: 0
    ) -> tuple[dict[str, Any], bool]:
        """Carries out one step.

        Args:
            batches: Batches of this process; a step takes `accumulation` of them.
            signal: Called near the end of the step; returns the number of a signal that asks this
                process to stop, or 0.

        Returns:
            The record for the log (`bsmamba2.training.logs`), and whether any process was asked to
            stop.

        Raises:
            NotFiniteError: Loss or gradient is not finite; the state is unchanged.
            TrainingError: Out of memory.
            DataError: Too many unreadable files.
        """
        state, training = self._state, self._config.training
        started = time.perf_counter()
        rate = learning_rate(state.step, self._total, training)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.zero_grad(set_to_none=True)
        with explained_memory():
            passes = [
                self._pass(batches, last=i == training.accumulation - 1)
                for i in range(training.accumulation)
            ]
        sums = [sum(p.losses[i] for p in passes) / len(passes) for i in range(3)]
        skipped = self._skipped - state.skipped
        *sums, all_skipped, signals = self._processes.sum([*sums, skipped, signal()])
        total, waveform, spectral = (value / self._processes.count for value in sums)
        norm = self._update(total, passes)
        state.items += training.items_per_step * self._processes.count
        state.step += 1
        state.skipped += int(all_skipped)
        self._skipped = state.skipped
        step_s = time.perf_counter() - started
        record = {
            "step": state.step,
            "items": state.items,
            "loss": total,
            "waveform": waveform,
            "spectral": spectral,
            "gradient_norm": norm,
            "learning_rate": rate,
            "step_s": round(step_s, 4),
            "data_wait_share": round(sum(p.waited_s for p in passes) / step_s, 4),
            "skipped": state.skipped,
        }
        return record, bool(signals)

    def _pass(self, batches: Iterator[TrainingBatch], *, last: bool) -> _Pass:
        """Runs one batch forward and backward; only the last of a step exchanges gradients."""
        training, device = self._config.training, self._processes.device
        started = time.perf_counter()
        batch = next(batches)
        waited_s = time.perf_counter() - started
        self._count_unreadable(batch)
        mixture = batch.mixture.to(device, non_blocking=True)
        target = batch.target.to(device, non_blocking=True)
        network = self._network
        exchange: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if isinstance(network, DistributedDataParallel) and not last:
            exchange = network.no_sync()
        with exchange:
            estimate = estimate_target(
                network, mixture, self._config.audio, precision=training.precision
            )
            terms = separation_loss(estimate, target, self._config.loss)
            (terms.total / training.accumulation).backward()
        losses = torch.stack(terms).tolist()  # the only synchronisation with the device
        return _Pass(losses, waited_s, batch.sources)

    def _count_unreadable(self, batch: TrainingBatch) -> None:
        for sentence in batch.unreadable:
            logger.warning("Skipped a segment: %s", sentence)
        self._skipped += len(batch.unreadable)
        limit = self._config.data.unreadable_limit
        if batch.unreadable and self._skipped > limit:
            raise DataError(
                f"{self._skipped} reads of training data failed, more than data.unreadable_limit = "
                f"{limit} allows; the last one: {batch.unreadable[-1]}"
            )

    def _update(self, loss: float, passes: list[_Pass]) -> float:
        """Clips and applies the gradients if all is finite; returns the norm before clipping."""
        state, training = self._state, self._config.training
        if not math.isfinite(loss):
            broken = [p for p in passes if not math.isfinite(p.losses[0])]
            raise self._not_finite("The loss", broken)
        parameters = list(state.network.parameters())
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, training.gradient_clip))
        if not math.isfinite(norm):
            raise self._not_finite("The gradient", passes)
        state.optimizer.step()
        state.ema.update_parameters(state.network)
        return norm

    def _not_finite(self, what: str, passes: list[_Pass]) -> NotFiniteError:
        mine = [source for p in passes for source in p.sources]
        sources = [source for part in self._processes.gather(mine) for source in part]
        return NotFiniteError(what, self._state.step + 1, sources)


@dataclass(frozen=True)
class _Pass:
    losses: list[float]
    waited_s: float
    sources: tuple[str, ...]


@contextlib.contextmanager
def explained_memory() -> Iterator[None]:
    """Turns out-of-memory errors into errors that say what to lower, also those of workers."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if "DataLoader worker (pid" in text:  # "... exited unexpectedly", "... is killed by signal"
            raise ResourceError(
                f"A data worker died, perhaps for lack of memory or threads: {FEWER_WORKERS}."
            ) from error
        lacks = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not (lacks or "can't allocate memory" in text or "not enough memory" in text):
            raise
        raise TrainingError(
            "The batch does not fit into memory: lower training.batch_size and raise "
            "training.accumulation by as much, or set training.checkpoint_gradients=true."
        ) from error
