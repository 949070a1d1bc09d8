"""`bsm train`: from a configuration and a folder of songs to a trained network."""

from __future__ import annotations

import contextlib
import logging
import signal
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bsmamba2.config.file import Config
from bsmamba2.data.checks import check_tracks
from bsmamba2.data.mixing import TrainingMixtures
from bsmamba2.data.salience import find_salient
from bsmamba2.data.tracks import Track, find_tracks
from bsmamba2.errors import BsmError, TrainingError
from bsmamba2.system.signals import stop_on_signals
from bsmamba2.training.checkpoints import RunFolder, claimed
from bsmamba2.training.distributed import Processes, joined
from bsmamba2.training.feeding import feed
from bsmamba2.training.identity import check_same_run, run_identity
from bsmamba2.training.logs import Listener, RunLog
from bsmamba2.training.schedule import total_steps
from bsmamba2.training.session import Session
from bsmamba2.training.state import TrainingState, new_state
from bsmamba2.training.step import NotFiniteError, Stepper

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What to train, on what, and where to keep it."""

    config: Config
    """All numbers."""
    data: Path
    """Folder of songs as MUSDB18-HQ has them."""
    out: Path
    """Folder of the run; one that holds a checkpoint is resumed."""
    start: Path | None = None
    """Checkpoint of the same network whose weights are the first ones; None: random ones."""
    cache: Path | None = None
    """Folder for what is computed once from the songs; None: beside them."""
    device: str = "auto"
    """"auto", "cpu" or "cuda"."""
    threads: int | None = None
    """CPU threads; None: those of the checkpoint, or PyTorch's choice."""
    allow_config_change: bool = False
    """Resume although configuration, songs or processes differ."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    step: int
    """Steps done."""
    total: int
    """Steps of the whole training."""
    best: tuple[int, float] | None
    """(step, uSDR in dB) of the best validation."""
    stopped_by: int
    """Number of the signal that asked for the end, or 0."""
    is_first: bool
    """Whether this is the process that reports."""


def train(run: Run, listener: Listener | None = None) -> Outcome:
    """Trains until the last step or until a signal asks for an end; resumes by itself.

    Under torchrun every process calls this.

    Args:
        run: Configuration, data and folder.
        listener: Gets the records of the log, in the first process.

    Raises:
        BsmError: What is wrong with configuration, data or folder; a loss that is not finite;
            a lack of memory or room; too many unreadable files.
    """
    with joined(run.device) as processes, contextlib.ExitStack() as stack:
        if processes.is_first:
            stack.enter_context(claimed(run.out))
        folder = RunFolder(run.out)
        saved = folder.load()
        _set_up(run, processes, saved)
        songs, validation_songs, mixtures = _find_songs(run, processes)
        identity = run_identity(run.config, songs, processes.count, run.start)
        if saved and run.start is None:
            identity["start"] = saved.get("start")  # it is needed once only
        state = new_state(run.config, processes.device)
        if run.start is not None and saved is None:
            state.start_from(run.start, run.config.model)
        changes = _resume(state, saved, identity, run, folder)
        if processes.is_first:
            folder.prepare(run.config, [step for step, _ in state.best] if saved else None)
        log = RunLog(run.out, state.step, listener) if processes.is_first else None
        stack.enter_context(log or contextlib.nullcontext())
        session = Session(
            config=run.config,
            processes=processes,
            folder=folder,
            state=state,
            identity=identity,
            log=log,
        )
        total = total_steps(run.config, processes.count)
        start = {"total": total, "changes": changes, "revision": identity["revision"]}
        session.write("resumed" if saved else "started", start)
        request = stack.enter_context(stop_on_signals())
        stepper = Stepper(state, run.config, processes)
        batches = feed(mixtures, state.items, run.config.training, processes)
        stopped = False
        while True:
            if not stopped and session.is_validation_due(total):
                session.validate(validation_songs)
            if stopped or state.step >= total:
                break
            try:
                record, stopped = stepper.step(batches, signal=request.signal)
            except NotFiniteError as error:
                raise session.failure(error) from error
            session.write("step", asdict(record))
            if session.is_saving_due() and not session.is_validation_due(total):
                session.save()
        session.save()
    return Outcome(
        step=state.step,
        total=total,
        best=state.best[0] if state.best else None,
        stopped_by=(request.signal or signal.SIGTERM) if stopped else 0,
        is_first=processes.is_first,
    )


def _set_up(run: Run, processes: Processes, saved: dict[str, Any] | None) -> None:
    """Threads, on which the last bit of a sum depends, and what the precision needs."""
    threads = run.threads or (saved["threads"] if saved else None)
    if threads is not None:
        torch.set_num_threads(threads)
    if saved and saved["threads"] != threads:
        logger.warning(
            "The run had %d CPU threads and goes on with %d: rounding will differ.",
            saved["threads"],
            threads,
        )
    if run.config.training.precision != "bf16":
        return
    if processes.device.type == "cpu":
        logger.warning("No GPU: bf16 on a CPU may be slower than training.precision=float32.")
    elif not torch.cuda.is_bf16_supported(including_emulation=False):
        raise TrainingError("This GPU does not compute in bf16: set training.precision=float32.")


def _find_songs(
    run: Run, processes: Processes
) -> tuple[list[Track], list[Track], TrainingMixtures]:
    """Songs for training and for validation, and the mixtures of the first ones."""
    data, audio, jobs = run.config.data, run.config.audio, max(1, run.config.training.workers)
    songs, validation_songs = (find_tracks(run.data, split, data) for split in ("train", "valid"))
    with processes.first_alone():
        if processes.is_first:
            check_tracks(run.data, ("train", "valid"), data, audio, run.cache, jobs=jobs)
        salience = find_salient(songs, data, audio, run.cache, jobs=jobs)
    mixtures = TrainingMixtures(salience, data, audio, seed=run.config.training.seed)
    return songs, validation_songs, mixtures


def _resume(
    state: TrainingState,
    saved: dict[str, Any] | None,
    identity: dict[str, Any],
    run: Run,
    folder: RunFolder,
) -> list[str]:
    """Loads a checkpoint if there is one; what differs from it."""
    if saved is None:
        return []
    try:
        changes = check_same_run(saved, identity, folder.last, allow_change=run.allow_config_change)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's on what it then refuses
            state.load(saved, run.config.training)
    except BsmError:
        raise
    except Exception as error:  # of whatever is in the file instead of what should be
        raise folder.damaged() from error
    return changes
