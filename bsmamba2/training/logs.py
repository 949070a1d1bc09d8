"""What a run tells: `log.jsonl`, TensorBoard, and whoever listens.

Each record is one dictionary with a `kind`: `step`, `validation`, `resumed` or `failed`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsmamba2.system.atomic import write_atomic, writing

logger = logging.getLogger(__name__)

Record = dict[str, Any]
Listener = Callable[[Record], None]


class RunLog:
    """The records of a run; a resumed one goes on where its checkpoint is."""

    def __init__(self, folder: Path, step: int, listener: Listener | None = None) -> None:
        """Opens the log.

        Args:
            folder: Of the run.
            step: Of the checkpoint that the run goes on from; later records are dropped.
            listener: Gets every record too.

        Raises:
            BsmError: The log cannot be written.
        """
        path = folder / "log.jsonl"
        _truncate(path, step)
        self._folder = folder
        with writing(f"into {folder}"):
            self._file = path.open("a", encoding="utf-8")
            self._board = _tensorboard(folder, step)
        self._listener = listener
        self._excepthook = threading.excepthook

    def write(self, kind: str, values: Mapping[str, Any]) -> None:
        """Writes a record that has a `step`; its numbers are scalars of TensorBoard."""
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
        """Excerpts, (channels, samples), for TensorBoard, which plays one channel."""
        if self._board is None:
            return
        for name, samples in excerpts.items():
            mono = samples.mean(axis=0, keepdims=True)
            with writing(f"into {self._folder}"):
                self._board.add_audio(f"excerpt/{name}", mono, step, rate)

    def __enter__(self) -> RunLog:
        threading.excepthook = self._failed_in_thread
        return self

    def _failed_in_thread(self, failure: threading.ExceptHookArgs) -> None:
        """Says in a line what TensorBoard's own thread cannot write; the run needs it not."""
        if isinstance(failure.exc_value, OSError):
            reason = failure.exc_value.strerror or failure.exc_value
            logger.warning("TensorBoard's files are not complete: %s.", reason)
        else:
            self._excepthook(failure)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with writing(f"into {self._folder}"):
                self._file.close()
                if self._board is not None:
                    self._board.close()
        finally:
            threading.excepthook = self._excepthook


def _truncate(path: Path, step: int) -> None:
    """Drops records after a step, and a last line that was cut off."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text("utf-8", errors="replace").splitlines(keepends=True):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
    write_atomic(path, "".join(kept))


def _tensorboard(folder: Path, step: int) -> Any:
    """TensorBoard's writer, or None where the package is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("TensorBoard is not installed (pip install tensorboard): only log.jsonl.")
        return None
    purge = step + 1 if step else None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=purge)
