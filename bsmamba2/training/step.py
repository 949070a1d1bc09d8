"""One step of the optimiser: draw, forward and backward passes, clip, update, average."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from bsmamba2.config.file import Config
from bsmamba2.data.mixing import Batch, UnreadableCounter
from bsmamba2.errors import TrainingError
from bsmamba2.training.distributed import Processes, common
from bsmamba2.training.estimate import estimate_target
from bsmamba2.training.loss import separation_loss
from bsmamba2.training.schedule import learning_rate, total_steps
from bsmamba2.training.state import TrainingState


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What the log says of a step; means over all its items."""

    step: int
    """Steps done, this one included."""
    items: int
    """Items drawn, all processes together."""
    loss: float
    """The total."""
    waveform: float
    """mean |y - s|."""
    spectral: float
    """Sum over windows of mean |STFT(y) - STFT(s)|."""
    gradient_norm: float
    """Before clipping."""
    learning_rate: float
    """Of this step."""
    step_s: float
    """Wall time."""
    data_wait_share: float
    """Share of it in which the first process waited for mixtures."""
    skipped: int
    """Draws that met an unreadable file, since the start of training."""


class NotFiniteError(TrainingError):
    """A loss or gradient that is NaN or infinite; the weights are those before the step."""

    def __init__(self, what: str, step: int, sources: list[str]) -> None:
        super().__init__(f"{what} is not finite at step {step}")
        self.what = what
        self.step = step
        self.sources = sources


class Stepper:
    """Does steps, changing a state."""

    def __init__(self, state: TrainingState, config: Config, processes: Processes) -> None:
        """Takes the state that steps change."""
        self._state = state
        self._config = config
        self._processes = processes
        if config.training.compile:
            for layer in state.network.layers:
                for block in layer.children():
                    block.compile()  # blocks of equal shapes share their code
        self._network = processes.wrap(state.network)
        self._total = total_steps(config, processes.count)
        self._unreadable = UnreadableCounter(config.data.unreadable_limit)
        self._unreadable.count = state.skipped

    def step(self, batches: Iterator[Batch], *, signal: int = 0) -> tuple[StepRecord, bool]:
        """One step.

        Args:
            batches: Of this process; `accumulation` of them are taken.
            signal: Not 0 if this process was told to stop.

        Returns:
            What the log says, and whether any process was told to stop.

        Raises:
            NotFiniteError: The state is as it was before.
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
            passes = [self._pass(batches, i) for i in range(training.accumulation)]
        sums = [sum(p.losses[i] for p in passes) / len(passes) for i in range(3)]
        waited_s = sum(p.waited_s for p in passes)
        skipped = sum(p.skipped for p in passes)
        *sums, all_skipped, signals = common([*sums, skipped, signal], self._processes)
        total, waveform, spectral = (value / self._processes.count for value in sums)
        norm = self._update(total, passes)
        state.items += training.items_per_step * self._processes.count
        state.step += 1
        state.skipped += int(all_skipped)
        self._unreadable.count = state.skipped
        step_s = time.perf_counter() - started
        record = StepRecord(
            step=state.step,
            items=state.items,
            loss=total,
            waveform=waveform,
            spectral=spectral,
            gradient_norm=norm,
            learning_rate=rate,
            step_s=round(step_s, 4),
            data_wait_share=round(waited_s / step_s, 4),
            skipped=state.skipped,
        )
        return record, bool(signals)

    def _pass(self, batches: Iterator[Batch], index: int) -> _Pass:
        """Forward and backward of one batch; gradients are exchanged in the last only."""
        training, device = self._config.training, self._processes.device
        started = time.perf_counter()
        batch = next(batches)
        waited_s = time.perf_counter() - started
        self._unreadable.add(batch)
        mixture = batch.mixture.to(device, non_blocking=True)
        target = batch.target.to(device, non_blocking=True)
        last = index == training.accumulation - 1
        local = contextlib.nullcontext() if last else _no_exchange(self._network)
        with local:
            estimate = estimate_target(
                self._network, mixture, self._config.audio, precision=training.precision
            )
            terms = separation_loss(estimate, target, self._config.loss)
            (terms.total / training.accumulation).backward()
        losses = torch.stack(terms).tolist()  # the one wait for the device
        sources = [source for item in batch.sources for source in item]
        return _Pass(losses, waited_s, int(batch.skipped), sources)

    def _update(self, loss: float, passes: list[_Pass]) -> float:
        """Clips and applies the gradients unless something is not finite; the norm."""
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
    skipped: int
    sources: list[str]


def _no_exchange(network: torch.nn.Module) -> contextlib.AbstractContextManager[None]:
    no_sync = getattr(network, "no_sync", contextlib.nullcontext)
    context: contextlib.AbstractContextManager[None] = no_sync()
    return context


@contextlib.contextmanager
def explained_memory() -> Iterator[None]:
    """Turns a lack of memory into a sentence; raises TrainingError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        lacks = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not (lacks or "can't allocate memory" in text or "not enough memory" in text):
            raise
        raise TrainingError(
            "The batch does not fit into memory: lower training.batch_size and raise "
            "training.accumulation by as much, or set training.checkpoint_gradients=true."
        ) from error
