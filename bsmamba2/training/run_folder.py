"""A run's folder: the last checkpoint, the best ones, and the moving average of the weights.

    config.yaml          the configuration, for people to read
    log.jsonl            one record per line; the same in tensorboard/
    last.ckpt            everything a resumed run needs
    best/step-N.ckpt     the same, saved after the best validations
    best/step-N.safetensors, best.safetensors, ema.safetensors
                         the moving average, as `bsm export` and `bsm infer` read it

A file gets its final name only when it is completely on the disk, so a run killed at any moment
leaves the previous checkpoint.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from bsmamba2.checkpoints.weights import write_weights
from bsmamba2.config.file import Config
from bsmamba2.errors import BsmError, TrainingError
from bsmamba2.formats.metadata import Metadata
from bsmamba2.system.atomic import (
    atomic_paths,
    link_or_copy,
    remove_abandoned,
    write_atomic,
    writing,
)

FORMAT = 2
"""Format of checkpoints; format 1 also held the state of a random generator that no step uses."""


class RunFolder:
    """The files that a run reads and writes."""

    def __init__(self, path: Path) -> None:
        """Takes a folder, which need not exist."""
        self.path = path
        self.last = path / "last.ckpt"
        self._saved_step = 0

    def load(self) -> dict[str, Any] | None:
        """Loads the last checkpoint; None if there is none.

        Raises:
            TrainingError: It is damaged or has a newer format.
        """
        if not self.last.exists():
            return None
        with self.reading():
            content = dict(torch.load(self.last, map_location="cpu", weights_only=True))
            version, self._saved_step = int(content["format"]), int(content["step"])
            content["threads"] = int(content["threads"])
            if not 1 <= content["threads"] < 1 << 16:
                raise ValueError("threads")
        if version > FORMAT:
            raise TrainingError(
                f"{self.last} has format {version}, but this version of bsmamba2 reads formats up "
                f"to {FORMAT}: upgrade bsmamba2."
            )
        return content

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Turns any error that a damaged checkpoint causes into a TrainingError."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch warns before it refuses a file
                yield
        except BsmError:
            raise
        except Exception as error:  # zip, pickle and torch have no common base
            kept = sorted(self.path.glob("best/step-*.ckpt"), key=lambda path: path.stat().st_mtime)
            replace = f"replace it with {kept[-1]}, or " if kept else ""
            raise TrainingError(
                f"{self.last} is damaged or not a checkpoint of a run: {replace}choose another "
                "--out."
            ) from error

    def prepare(self, config: Config, best: list[int] | None) -> None:
        """Removes temporary files of a killed run and writes the configuration.

        Args:
            config: Configuration of the run.
            best: Steps of the best checkpoints, as listed in the last one; None if there is none.

        Raises:
            BsmError: The folder cannot be written.
        """
        for folder in (self.path, self.path / "best"):
            remove_abandoned(folder)
        if best is not None:
            self._remove_worse(best)
        plain = json.loads(json.dumps(asdict(config)))  # lists for tuples
        write_atomic(self.path / "config.yaml", yaml.safe_dump(plain, sort_keys=False))

    def save(
        self,
        content: Mapping[str, Any],
        average: Mapping[str, torch.Tensor],
        metadata: Metadata,
        *,
        is_best: bool = False,
    ) -> None:
        """Writes the last checkpoint and the moving average.

        All files are renamed together when complete, the last checkpoint after the others: it lists
        the best ones, and after a kill in between, the resumed run writes the others again. Files
        with equal content are hard links where possible.

        Args:
            content: Tensors and plain values, including `step` and `best`.
            average: State dict of the moving average.
            metadata: Metadata for the files of the moving average.
            is_best: Whether this is one of the best validations.

        Raises:
            TrainingError: A file cannot be written; the sentence names the last good checkpoint.
        """
        step, best = int(content["step"]), [int(step) for step, _ in content["best"]]
        paths = [self.path / "ema.safetensors", self.last]
        if is_best:
            kept = self.path / "best" / f"step-{step}"
            paths = [kept.with_suffix(".safetensors"), kept.with_suffix(".ckpt"), *paths]
            if best[0] == step:
                paths.insert(0, self.path / "best.safetensors")
        written: dict[str, Path] = {}
        try:
            with atomic_paths(paths) as partials:
                for path, partial in zip(paths, partials, strict=True):
                    with writing(path):
                        if path.suffix in written:
                            partial.unlink()
                            link_or_copy(written[path.suffix], partial)
                        elif path.suffix == ".ckpt":
                            _write(partial, {"format": FORMAT, **content})
                        else:
                            write_weights(partial, average, metadata)
                    written[path.suffix] = partial
            self._saved_step = step
            self._remove_worse(best)
        except BsmError as error:
            raise TrainingError(f"{error} {self.last_good()}") from error

    def last_good(self) -> str:
        """Returns a sentence that names the checkpoint from which the run can be resumed."""
        if not self._saved_step:
            return "No checkpoint has been saved yet."
        return f"The last good checkpoint is {self.last}, from step {self._saved_step}."

    def _remove_worse(self, best: list[int]) -> None:
        kept = {f"step-{step}" for step in best}
        with writing(f"into {self.path / 'best'}"):
            for path in self.path.glob("best/step-*"):
                if path.stem not in kept:
                    path.unlink(missing_ok=True)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """torch.save followed by fsync; raises OSError."""
    with path.open("wb") as file:
        try:
            torch.save(dict(content), file)
        except RuntimeError as error:  # PyTorch's zip writer raises it after a failed write
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise OSError(errno.EIO, str(error).splitlines()[0]) from error
        file.flush()
        os.fsync(file.fileno())
