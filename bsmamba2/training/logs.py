"""The records of a run: in `log.jsonl`, in TensorBoard, and passed to a listener.

Each record is a dictionary with `kind` and `step`, the number of completed steps, and, by kind:

    started, resumed    total steps; changes since the checkpoint; revision of the code; songs and
                        left_out: split -> the number of songs, and name -> why it is left out
    step                items drawn; loss, waveform and spectral, means over the items of a step;
                        gradient_norm before clipping; learning_rate; step_s; data_wait_share, the
                        share of step_s in which the first process waited for mixtures; skipped,
                        the number of unreadable draws since the start of training
    validation          usdr and mixture_usdr in dB, means over tracks; tracks: name -> usdr;
                        silent, the number of tracks with null instead, as they have nothing to
                        separate
    failed              what was not finite; sources of the batch
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from bsmamba2.system.atomic import write_atomic, writing

logger = logging.getLogger(__name__)

Record = dict[str, Any]
Listener = Callable[[Record], None]


class RunLog:
    """The open log of a run."""

    def __init__(self, folder: Path, file: IO[str], board: Any, listener: Listener | None) -> None:
        """Takes open files; see `open_log`."""
        self._folder, self._file, self._board, self._listener = folder, file, board, listener

    def write(self, kind: str, values: Mapping[str, Any]) -> None:
        """Writes a record, whose values include `step`; floats become scalars in TensorBoard."""
        record: Record = {"kind": kind, **values}
        with writing(f"into {self._folder}"):
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
            if self._board is not None:
                for name, value in values.items():
                    if isinstance(value, float):
                        self._board.add_scalar(f"{kind}/{name}", value, values["step"])
        if self._listener is not None:
            self._listener(record)

    def audio(self, excerpts: Mapping[str, NDArray[np.float32]], step: int, rate: int) -> None:
        """Adds excerpts, (channels, samples), to TensorBoard, mixed down to mono."""
        if self._board is None:
            return
        for name, samples in excerpts.items():
            mono = samples.mean(axis=0, keepdims=True)
            with writing(f"into {self._folder}"):
                self._board.add_audio(f"excerpt/{name}", mono, step, rate)


@contextlib.contextmanager
def open_log(folder: Path, step: int, listener: Listener | None = None) -> Iterator[RunLog]:
    """Opens the log of a run, which a resumed run continues from its checkpoint.

    Args:
        folder: Folder of the run.
        step: Step of the checkpoint; records of later steps are dropped.
        listener: Called with every record.

    Raises:
        BsmError: The log cannot be written.
    """
    path = folder / "log.jsonl"
    _truncate(path, step)
    usual = threading.excepthook

    def fail_in_thread(failure: threading.ExceptHookArgs) -> None:
        """Logs a failed write of TensorBoard's thread as one warning; the run continues."""
        if isinstance(failure.exc_value, OSError):
            reason = failure.exc_value.strerror or failure.exc_value
            logger.warning("TensorBoard's files are incomplete: %s.", reason)
        else:
            usual(failure)

    with writing(f"into {folder}"):
        file = path.open("a", encoding="utf-8")
        board = _tensorboard(folder, step)
    threading.excepthook = fail_in_thread
    try:
        yield RunLog(folder, file, board, listener)
    finally:
        try:
            with writing(f"into {folder}"):
                file.close()
                if board is not None:
                    board.close()
        finally:
            threading.excepthook = usual


def _truncate(path: Path, step: int) -> None:
    """Drops the records after a step, and an incomplete last line."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text("utf-8", errors="replace").splitlines(keepends=True):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
    write_atomic(path, "".join(kept))


def _tensorboard(folder: Path, step: int) -> Any:
    """Returns TensorBoard's writer, or None if the package is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info(
            "TensorBoard is not installed (pip install tensorboard): writing log.jsonl only."
        )
        return None
    purge = step + 1 if step else None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=purge)
