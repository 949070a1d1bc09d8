"""A run while it goes: its log, its checkpoints, its validations."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bsmamba2.config.file import Config
from bsmamba2.errors import TrainingError
from bsmamba2.formats.metadata import Metadata, Provenance
from bsmamba2.training.checkpoints import RunFolder
from bsmamba2.training.distributed import Processes
from bsmamba2.training.logs import RunLog
from bsmamba2.training.schedule import validation_period
from bsmamba2.training.state import TrainingState
from bsmamba2.training.step import NotFiniteError
from bsmamba2.training.validation import validate

if TYPE_CHECKING:
    from bsmamba2.data.tracks import Track

_NAMED = 8  # sources that a message names


class Session:
    """What a run writes, and when; every process has one, the first one's writes."""

    def __init__(
        self,
        *,
        config: Config,
        processes: Processes,
        folder: RunFolder,
        state: TrainingState,
        identity: Mapping[str, Any],
        log: RunLog | None,
    ) -> None:
        """Takes what is written and where.

        Args:
            config: Of the run.
            processes: Who trains.
            folder: Where checkpoints go.
            state: Of the run; steps change it.
            identity: What a checkpoint says of the run.
            log: None in all processes but the first.
        """
        self._config = config
        self._processes = processes
        self._folder = folder
        self._state = state
        self._identity = identity
        self._log = log
        self._saved_step = state.step
        self._saved_at = time.monotonic()

    def write(self, kind: str, values: Mapping[str, Any]) -> None:
        """A record for the log; `step` is added where it is missing."""
        if self._log is not None:
            self._log.write(kind, {"step": self._state.step, **values})

    def is_validation_due(self, total: int) -> bool:
        """Whether epochs have ended since the last validation, or the training has."""
        state = self._state
        if validation_period(state.items, self._config) > validation_period(
            state.validated, self._config
        ):
            return True
        return state.step >= total and state.validated < state.items

    def validate(self, songs: Sequence[Track]) -> None:
        """Measures the moving average, notes the result and saves."""
        state, config = self._state, self._config
        average = state.ema.module
        average.eval()
        found = validate(average, self._metadata(), songs, self._processes)
        state.validated = state.items
        ranked = sorted([*state.best, (state.step, found.usdr)], key=lambda b: (-b[1], b[0]))
        state.best = ranked[: config.training.keep_best]
        values = {"usdr": found.usdr, "mixture_usdr": found.mixture_usdr, "tracks": found.tracks}
        self.write("validation", values)
        if self._log is not None:
            self._log.audio(found.excerpts, state.step, config.audio.sample_rate)
        self.save(is_best=any(step == state.step for step, _ in state.best))

    def is_saving_due(self) -> bool:
        """Whether the last save is long enough ago."""
        minutes = (time.monotonic() - self._saved_at) / 60
        return minutes >= self._config.training.checkpoint_minutes

    def save(self, *, is_best: bool = False) -> None:
        """Writes the last checkpoint; nothing if this step is saved already.

        Raises:
            TrainingError: It cannot be written, or an update made a weight infinite; what was
                saved before is as it was.
        """
        state = self._state
        if self._processes.is_first and (is_best or state.step != self._saved_step):
            if not all(bool(weight.isfinite().all()) for weight in state.network.parameters()):
                raise self.failure(NotFiniteError("A weight", state.step, []))
            average = state.ema.module.state_dict()
            content = {**self._identity, **state.to_dict()}
            self._folder.save(content, average, self._metadata(), is_best=is_best)
        self._saved_step = state.step
        self._saved_at = time.monotonic()

    def failure(self, error: NotFiniteError) -> TrainingError:
        """Notes what was in the batch; the sentence for the user."""
        sources = error.sources
        self.write("failed", {"step": error.step, "what": error.what, "sources": sources})
        named = f", with {', '.join(sources[:_NAMED])}" if sources else ""
        if len(sources) > _NAMED:
            named += f" and {len(sources) - _NAMED} more, listed in log.jsonl"
        mend = ", or look at these sources" if sources else ""
        return TrainingError(
            f"{error.what} is NaN or infinite at step {error.step}{named}. "
            f"{self._folder.last_good()} Lower training.learning_rate{mend}."
        )

    def _metadata(self) -> Metadata:
        run = self._folder.path.resolve().name
        source = f"moving average of training run {run}, step {self._state.step}"
        if start := self._identity["start"]:
            source += f", from {start['file']}"
        provenance = Provenance(source=source, trained=True)
        return Metadata(model=self._config.model, provenance=provenance)
