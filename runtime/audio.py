"""Audio files in: one reader for all formats, in blocks.

WAV, FLAC, MP3, OGG and what else libsndfile knows go through soundfile, everything else through
PyAV (FFmpeg) where it is installed. A reader gives what the file promises or raises.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from bsmamba2.errors import AudioError, MissingExtraError
from bsmamba2.files import existing_file
from bsmamba2.runtime.chunking import Samples

logger = logging.getLogger(__name__)

SOUNDFILE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "wave", "bwf", "rf64", "w64", "flac", "mp3", "ogg", "oga", "opus"),
        *("aif", "aiff", "aifc", "au", "snd", "caf"),
    )
)
OTHER_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("m4a", "m4b", "mp4", "aac", "ac3", "alac", "ape", "dts", "mka", "mkv"),
        *("mov", "mp2", "tta", "webm", "wma", "wv"),
    )
)
MAX_CHANNELS = 2
_CLIPPED_LEVEL = 0.999
_CLIPPED_SAMPLES = 20  # below that, flat tops are ordinary loud music


class Decoder(Protocol):
    """What a backend makes of an opened file."""

    sample_rate: int
    channels: int
    frames: int | None
    """Samples per channel by the header; None if unknown."""
    missing_allowed: int | None
    """How many fewer may come without a fault; None if `frames` is an estimate."""

    def decode(self) -> Iterator[Samples]:
        """Blocks (channels, n), once; raises AudioError where decoding fails."""
        ...

    def close(self) -> None:
        """Closes the file."""
        ...


class AudioReader:
    """An audio file, read once from its beginning to its end; a context manager.

    Attributes:
        path: The file.
        sample_rate: Hz.
        channels: 1 or 2.
        frames: Samples per channel, None if unknown, approximate for lossy formats.
    """

    def __init__(self, path: str | Path, *, warn_clipped: bool = True) -> None:
        """Opens a file.

        Args:
            path: Of any format that a backend knows.
            warn_clipped: Whether `blocks` logs a warning of a file that is clipped.

        Raises:
            BsmError: No such file, or it cannot be read.
            AudioError: No audio, a truncated file, more than two channels.
            MissingExtraError: A format that needs PyAV.
        """
        self.path = existing_file(path)
        if not self.path.is_file():
            raise AudioError(f"{path} is not a regular file: save its audio to one first.")
        if self.path.stat().st_size == 0:
            raise AudioError(f"{path} is empty (0 bytes): copy or download it again.")
        self._decoder = _open(self.path)
        self._warn_clipped = warn_clipped
        self.sample_rate = self._decoder.sample_rate
        self.channels = self._decoder.channels
        self.frames = self._decoder.frames
        if self.channels > MAX_CHANNELS:
            self.close()
            raise AudioError(
                f"{path} has {self.channels} channels, at most {MAX_CHANNELS} can be separated: "
                "mix it down to stereo first."
            )

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._decoder.close()

    def blocks(self) -> Iterator[Samples]:
        """The file's samples, float32 (channels, n), full scale 1.

        Raises:
            AudioError: No samples, NaN or Inf, damaged or truncated data.
        """
        done, flat = 0, 0
        for block in self._decoder.decode():
            check_finite(block, done, self.sample_rate, str(self.path))
            done += block.shape[1]
            flat += _flat_tops(block)
            yield block
        if not done:
            raise AudioError(f"{self.path} holds no samples: record or export it again.")
        self._check_length(done)
        if self._warn_clipped and flat > _CLIPPED_SAMPLES:
            logger.warning(
                "%s is clipped (%d samples stand at full scale): its stems will be too.",
                self.path,
                flat,
            )

    def _check_length(self, done: int) -> None:
        promised, allowed = self.frames, self._decoder.missing_allowed
        if promised is None or allowed is None or done >= promised - allowed:
            return
        raise AudioError(
            f"{self.path} is damaged or truncated: only {done / self.sample_rate:.2f} of "
            f"{promised / self.sample_rate:.2f} s can be decoded; copy or download it again."
        )


def check_finite(block: Samples, start: int, rate: int, what: str) -> None:
    """Raises AudioError with the time of the first NaN or Inf.

    Args:
        block: (channels, n).
        start: The block's first sample in the song.
        rate: Hz.
        what: Subject of the sentence.
    """
    finite = np.isfinite(block).all(axis=0)
    if not finite.all():
        time_s = (start + int(np.argmin(finite))) / rate
        raise AudioError(
            f"{what} holds NaN or infinite samples at {time_s:.3f} s: repair or cut that place."
        )


def _flat_tops(block: Samples) -> int:
    """Samples near full scale that equal the one before, as only clipping makes them."""
    loud = np.abs(block[:, 1:]) >= _CLIPPED_LEVEL
    return int(np.count_nonzero(loud & (block[:, 1:] == block[:, :-1]))) if loud.any() else 0


def _open(path: Path) -> Decoder:
    """A decoder: soundfile for what libsndfile should know, PyAV for the rest."""
    from bsmamba2.runtime.decoding import AvDecoder, SoundfileDecoder, lacks_length

    suffix = path.suffix.lower()
    if suffix == ".mp3" and lacks_length(path):
        try:
            return AvDecoder(path)
        except MissingExtraError:
            logger.warning(
                "%s does not state its length and may be cut short: install "
                "'bsmamba2[av]' to read such MP3 files in full.",
                path,
            )
    if suffix in SOUNDFILE_SUFFIXES:
        return SoundfileDecoder(path)
    try:
        return SoundfileDecoder(path)
    except AudioError:
        return AvDecoder(path)
