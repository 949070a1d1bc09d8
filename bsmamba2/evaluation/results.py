"""The result of one separation of one track, and the folder that stores results.

Each result is a JSON file, which is written atomically, so a rerun computes only what is missing.
Its name contains a hash of everything that the numbers depend on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsmamba2.errors import FileError
from bsmamba2.system.atomic import atomic_path, write_atomic, writing
from bsmamba2.system.files import existing_file, sha256_file

logger = logging.getLogger(__name__)

FORMAT = 3
"""Format of result files; increase it when the meaning of their numbers changes, and songs are
measured again. Format 2 had SDRs for silent stems."""
_NAME_LENGTH = 50  # characters of a track's name in a file name, which may have 255 bytes


@dataclass(frozen=True, kw_only=True)
class StemScores:
    """SDRs of one stem's estimate, and of the mixture taken as the estimate, in dB."""

    usdr: float
    """NaN if the stem is silent in this track."""
    csdr: float
    """NaN if the stem is silent or all frames are dropped, infinite if the median frame is perfect.
    """
    mixture_usdr: float
    """NaN if this stem or all others are silent: there is nothing to separate."""
    mixture_csdr: float
    frames: int
    """Number of whole seconds."""
    dropped: int
    """Frames without a cSDR, because the reference or the estimate is all zero."""

    @property
    def silent(self) -> bool:
        """Whether the stem is silent in this track."""
        return math.isnan(self.usdr)


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """What remains in the estimate where the target should be silent."""

    silent_s: int
    """Whole seconds in which the reference is below -60 dBFS."""
    level_dbfs: float
    """Level of estimate - reference in those seconds; NaN if there are none."""
    mixture_dbfs: float
    """Level of mixture - reference in those seconds."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """A part of a track, such as an onset of the target."""

    start_s: float
    duration_s: float
    sdr: float
    """SDR of the target in dB; NaN in a minute in which it is silent."""
    mixture_sdr: float
    """SDR of the mixture taken as the estimate, in dB."""


@dataclass(frozen=True, kw_only=True)
class Minute(Region):
    """A minute of a track, or the whole of a shorter one."""

    voiced_s: int
    """Whole seconds in which the target is not silent."""


@dataclass(frozen=True, kw_only=True)
class TrackResult:
    """One track, separated once in chunks of one length."""

    track: str
    duration_s: float
    chunk_s: int
    overlap_s: float
    elapsed_s: float
    """Time for reading, separation and measuring."""
    stems: dict[str, StemScores]
    """Scores of the target, then of the residual."""
    leakage: Leakage
    onsets: tuple[Region, ...]
    minutes: tuple[Minute, ...]
    frames_db: tuple[float, ...]
    """The target's SDR of each whole second; NaN where dropped."""

    @property
    def silent_stems(self) -> list[str]:
        """Stems that are silent in this track; with one, the track is left out of SDRs' means."""
        return [name for name, scores in self.stems.items() if scores.silent]

    def to_json(self) -> str:
        """Returns text for `from_json`; NaN and infinities as Python's json writes them."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> TrackResult:
        """The inverse of `to_json`; raises ValueError, KeyError or TypeError for other text."""
        values: dict[str, Any] = json.loads(text)
        if values.pop("format") != FORMAT:
            raise ValueError("another format")
        values["stems"] = {name: StemScores(**scores) for name, scores in values["stems"].items()}
        values["leakage"] = Leakage(**values["leakage"])
        values["onsets"] = tuple(Region(**onset) for onset in values["onsets"])
        values["minutes"] = tuple(Minute(**minute) for minute in values["minutes"])
        values["frames_db"] = tuple(map(float, values["frames_db"]))
        return cls(**values)


class ResultStore:
    """A folder of results."""

    def __init__(self, folder: Path) -> None:
        """Creates the folder; raises BsmError if it is not writable."""
        self._folder = folder
        self._digests: dict[Path, str] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(
                f"The folder {folder} cannot be created: {error.strerror}; name another with --out."
            ) from error
        if not os.access(folder, os.W_OK):
            raise FileError(f"The folder {folder} is not writable: name another with --out.")

    def key(self, files: Mapping[str, Path], parameters: Mapping[str, Any]) -> str:
        """Returns a hash of everything a result depends on, 16 hexadecimal digits.

        Args:
            files: Audio files of the track by name, whose bytes are hashed.
            parameters: Hash of the engine, chunk, overlap and so on; plain values.

        Raises:
            BsmError: A file cannot be read.
        """
        for path in files.values():  # hash each file once, although a track has many results
            self._digests[path] = self._digests.get(path) or sha256_file(existing_file(path))
        audio = {name: self._digests[path] for name, path in files.items()}
        text = json.dumps([FORMAT, parameters, audio], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def load(self, track: str, key: str) -> TrackResult | None:
        """Loads a result; None if it does not exist or cannot be read."""
        path = self._path(track, key, "json")
        try:
            return TrackResult.from_json(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            logger.warning("%s is damaged: its track will be measured again.", path)
            return None

    def save(self, key: str, result: TrackResult) -> None:
        """Writes a result; raises BsmError if that is impossible."""
        write_atomic(self._path(result.track, key, "json"), result.to_json())

    def load_pictures(self, track: str, key: str) -> NDArray[np.uint8] | None:
        """Loads spectrograms, (pictures, rows, columns); None if they cannot be read."""
        try:
            pictures: NDArray[np.uint8] = np.load(self._path(track, key, "npy"))
        except (OSError, ValueError, EOFError):
            return None
        return pictures if pictures.ndim == 3 and pictures.dtype == np.uint8 else None

    def save_pictures(self, track: str, key: str, pictures: NDArray[np.uint8]) -> None:
        """Writes spectrograms; raises BsmError if that is impossible."""
        path = self._path(track, key, "npy")
        with atomic_path(path) as partial, writing(path):
            np.save(partial, pictures)

    def _path(self, track: str, key: str, suffix: str) -> Path:
        return self._folder / f"{track[:_NAME_LENGTH]}.{key}.{suffix}"
