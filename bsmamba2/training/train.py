"""`bsm train`: trains a network, given a configuration and a folder of songs."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bsmamba2.config.file import Config
from bsmamba2.data.checks import check_tracks
from bsmamba2.data.mixing import TrainingMixtures
from bsmamba2.data.salience import find_salient, salient_tracks
from bsmamba2.data.tracks import FoundTracks, Track, find_tracks
from bsmamba2.errors import TrainingError
from bsmamba2.formats.metadata import Metadata, Provenance
from bsmamba2.system.atomic import claimed
from bsmamba2.system.cores import bounded_threads
from bsmamba2.system.signals import StopRequest, stop_on_signals
from bsmamba2.training.distributed import Processes, joined
from bsmamba2.training.identity import check_same_run, run_identity
from bsmamba2.training.loader import end_workers, load_batches
from bsmamba2.training.logs import Listener, RunLog, open_log
from bsmamba2.training.run_folder import RunFolder
from bsmamba2.training.state import TrainingState, new_state
from bsmamba2.training.step import NotFiniteError, Stepper, total_steps
from bsmamba2.training.validation import validate

logger = logging.getLogger(__name__)

_NAMED = 8  # sources listed in a message


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    step: int
    """Completed steps."""
    total: int
    """Steps of the whole training."""
    best: tuple[int, float] | None
    """(step, uSDR in dB) of the best validation; None if no validation song has a uSDR."""
    stopped_by: int
    """Number of the signal that stopped the run, or 0."""
    is_first: bool
    """Whether this is the process that reports."""


def train(
    config: Config,
    data: Path,
    out: Path,
    *,
    start: Path | None = None,
    cache: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    allow_config_change: bool = False,
    listener: Listener | None = None,
    report: Callable[[str], None] = lambda _: None,
    on_stop: Callable[[], None] = lambda: None,
) -> Outcome:
    """Trains until the last step or a signal; resumes the run if its folder has a checkpoint.

    Under torchrun every process calls this.

    Args:
        config: Configuration of the run.
        data: Folder of songs in MUSDB18-HQ's layout.
        out: Folder of the run; one that holds a checkpoint is resumed.
        start: Checkpoint of the same network with the initial weights; random weights if None.
        cache: Folder of the cache of salient segments; if None, it is beside the songs.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads, at most `usable_cores`; if None, as many as the checkpoint names, or
            PyTorch's choice.
        allow_config_change: Resume even if configuration, songs or processes differ.
        listener: Called with the records of the log, in the first process.
        report: Called in the first process with a sentence before work that may take minutes, and
            with the number of songs.
        on_stop: Called in the first process when a signal asks it to stop after the current step;
            restricted as `on_first` of `stop_on_signals`.

    Raises:
        BsmError: Configuration, data or folder cannot be used, a loss is not finite, memory or
            disk is full, or too many files are unreadable.
    """
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(joined(device))
        is_first = processes.rank == 0
        if is_first:
            stack.enter_context(claimed(out, "lock"))
        folder = RunFolder(out)
        saved = folder.load()
        _set_threads(threads, saved)
        _check_precision(config.training.precision, processes.device)
        songs, mixtures = _find_songs(config, data, cache, processes, report)
        identity = run_identity(config, songs["train"].tracks, processes.count, start)
        state = new_state(config, processes.device)
        changes: list[str] = []
        if saved is not None:
            with folder.reading():
                if start is None and (first := saved.get("start")):  # resuming needs no --start
                    identity["start"] = {key: str(first[key]) for key in ("file", "sha256")}
                changes = check_same_run(
                    saved, identity, folder.last, allow_change=allow_config_change
                )
                state.load(saved, config.training)
        elif start is not None:
            state.start_from(start, config.model)
        log = None
        if is_first:
            folder.prepare(config, [step for step, _ in state.best] if saved else None)
            log = stack.enter_context(open_log(out, state.step, listener))
        total = total_steps(config, processes.count)
        run = TrainingRun(config, processes, folder, state, identity, log)
        about = {
            "total": total,
            "changes": changes,
            "revision": identity["revision"],
            "songs": {split: len(found.tracks) for split, found in songs.items()},
            "left_out": {split: dict(found.left_out) for split, found in songs.items()},
        }
        run.write("resumed" if saved else "started", about)
        request = stack.enter_context(stop_on_signals(on_stop if is_first else lambda: None))
        if is_first and config.training.compile and state.step < total:
            report("Compiling the network: the first step may take some minutes.")
        stepper = Stepper(state, config, processes)
        batches = load_batches(mixtures, state.items, config.training, processes)
        stack.callback(end_workers, batches)
        stack.enter_context(_silent_compilers(request))
        stopped, first_step = False, state.step
        while True:
            if not stopped and run.is_validation_due(total):
                run.validate(songs["valid"].tracks)
            if stopped or state.step >= total:
                break
            try:
                record, stopped = stepper.step(batches, signal=lambda: request.signal)
            except NotFiniteError as error:
                raise run.failure(error) from error
            except Exception:
                # Ctrl-C also ends the compilers, so that the step fails; it has changed nothing.
                if not (request.signal and config.training.compile and state.step == first_step):
                    raise
                stopped = True
                break
            run.write("step", record)
            if run.is_saving_due() and not run.is_validation_due(total):
                run.save()
        run.save()
    return Outcome(
        step=state.step,
        total=total,
        best=next((best for best in state.best[:1] if math.isfinite(best[1])), None),
        stopped_by=(request.signal or signal.SIGTERM) if stopped else 0,
        is_first=is_first,
    )


@contextlib.contextmanager
def _silent_compilers(request: StopRequest) -> Iterator[None]:
    """Drops PyTorch's messages after a signal: its compilers, which also got it, fail at length."""

    def is_wanted(_: logging.LogRecord) -> bool:
        return not request.signal

    handlers = list(logging.getLogger("torch").handlers)
    for handler in handlers:
        handler.addFilter(is_wanted)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_wanted)


class TrainingRun:
    """Decides what a run writes, and when; every process has one, only the first one writes."""

    def __init__(
        self,
        config: Config,
        processes: Processes,
        folder: RunFolder,
        state: TrainingState,
        identity: Mapping[str, Any],
        log: RunLog | None,
    ) -> None:
        """Takes the state and the folder to save it in; only the first process has a log."""
        self._config, self._processes, self._folder = config, processes, folder
        self._state, self._identity, self._log = state, identity, log
        self._saved_step = state.step
        self._saved_at = time.monotonic()

    def write(self, kind: str, values: Mapping[str, Any]) -> None:
        """Writes a record to the log, adding `step` if it is missing."""
        if self._log is not None:
            self._log.write(kind, {"step": self._state.step, **values})

    def is_validation_due(self, total: int) -> bool:
        """Whether the epochs between validations, or all of the training, have passed."""
        state, config = self._state, self._config
        period = config.data.items_per_epoch * config.training.validation_every
        if state.items // period > state.validated // period:
            return True
        return state.step >= total and state.validated < state.items

    def validate(self, songs: Sequence[Track]) -> None:
        """Measures the moving average, records the result and saves."""
        state, config = self._state, self._config
        average = state.ema.module
        average.eval()
        scores, excerpts = validate(average, self._metadata(), songs, self._processes)
        state.validated = state.items
        score = -math.inf if scores["usdr"] is None else scores["usdr"]
        # Of equal validations, such as those without any score, the last one comes first.
        ranked = sorted([(state.step, score), *state.best], key=lambda best: -best[1])
        state.best = ranked[: config.training.keep_best]
        self.write("validation", scores)
        if self._log is not None:
            self._log.audio(excerpts, state.step, config.audio.sample_rate)
        self.save(is_best=any(step == state.step for step, _ in state.best))

    def is_saving_due(self) -> bool:
        """Whether `checkpoint_minutes` have passed since the last save."""
        minutes = (time.monotonic() - self._saved_at) / 60
        return minutes >= self._config.training.checkpoint_minutes

    def save(self, *, is_best: bool = False) -> None:
        """Writes the last checkpoint, unless this step has been saved already.

        Raises:
            TrainingError: It cannot be written, or a weight is not finite; earlier checkpoints
                remain unchanged.
        """
        state = self._state
        if self._processes.rank == 0 and (is_best or state.step != self._saved_step):
            if not all(bool(weight.isfinite().all()) for weight in state.network.parameters()):
                raise self.failure(NotFiniteError("A weight", state.step, []))
            average = state.ema.module.state_dict()
            content = {**self._identity, **state.to_dict()}
            self._folder.save(content, average, self._metadata(), is_best=is_best)
        self._saved_step = state.step
        self._saved_at = time.monotonic()

    def failure(self, error: NotFiniteError) -> TrainingError:
        """Logs the sources of the batch; returns the error for the user."""
        sources = error.sources
        self.write("failed", {"step": error.step, "what": error.what, "sources": sources})
        named = f", with {', '.join(sources[:_NAMED])}" if sources else ""
        if len(sources) > _NAMED:
            named += f" and {len(sources) - _NAMED} more, listed in log.jsonl"
        mend = ", or check these sources" if sources else ""
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
        return Metadata(
            model=self._config.model, provenance=provenance, stems=self._config.data.stems
        )


def _set_threads(threads: int | None, saved: Mapping[str, Any] | None) -> None:
    """Sets the number of threads, on which rounding depends: by default as in the checkpoint."""
    default = saved["threads"] if saved else torch.get_num_threads()
    used = bounded_threads(threads, default)
    if threads or saved or used < default:
        torch.set_num_threads(used)
    if saved and saved["threads"] != used:
        logger.warning(
            "The run used %d CPU threads and continues with %d: rounding will differ.",
            saved["threads"],
            used,
        )


def _check_precision(precision: str, device: torch.device) -> None:
    if precision == "bf16" and device.type == "cpu":
        logger.warning(
            "Training on the CPU in bf16, which may be slower than training.precision=float32."
        )
    elif precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise TrainingError("This GPU does not support bf16: set training.precision=float32.")


def _find_songs(
    config: Config,
    root: Path,
    cache: Path | None,
    processes: Processes,
    report: Callable[[str], None],
) -> tuple[dict[str, FoundTracks], TrainingMixtures]:
    """Returns the songs for training and for validation, by split, and the training mixtures."""
    data, audio, jobs = config.data, config.audio, max(1, config.training.workers)
    songs = {split: find_tracks(root, split, data) for split in ("train", "valid")}
    with processes.first_alone():
        if processes.rank == 0:
            check_tracks(root, tuple(songs), data, audio, cache, jobs=jobs, report=report)
        salience = find_salient(songs["train"].tracks, data, audio, cache, jobs=jobs)
    songs["train"] = salient_tracks(songs["train"], salience)
    if processes.rank == 0:
        for split, found in songs.items():
            report(f"{split}: {found}.")
    mixtures = TrainingMixtures(salience, data, audio, seed=config.training.seed)
    return songs, mixtures
