"""Writes audio files: formats, depths, and a writer that verifies what it wrote.

A writer fills one file. `atomic.atomic_paths` takes care that the files of all stems appear
together, and only if nothing failed.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from bsmamba2.errors import AudioError, OptionError
from bsmamba2.runtime.audio.samples import Samples
from bsmamba2.runtime.audio.tags import id3_tag

logger = logging.getLogger(__name__)

FORMATS = ("wav", "flac", "mp3", "ogg")
CLIP_MODES = ("none", "clamp", "rescale")
_SUBTYPES = {
    ("wav", "16"): ("PCM_16", 2),
    ("wav", "24"): ("PCM_24", 3),
    ("wav", "float"): ("FLOAT", 4),
    ("flac", "16"): ("PCM_16", 2),
    ("flac", "24"): ("PCM_24", 3),
    ("mp3", None): ("MPEG_LAYER_III", 0),
    ("ogg", None): ("VORBIS", 0),
}  # (format, depth) -> libsndfile's name, bytes per sample
_DEFAULT_DEPTH = {"wav": "float", "flac": "24"}
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_OGG_MAX_RATE = 200_000  # libvorbis crashes above it
_FLAC_MAX_RATE = 655_350  # above 65535, only multiples of 10
_WAV_MAX_BYTES = (1 << 32) - (1 << 16)  # RIFF's sizes have 32 bits; leaves room for a header
_BLOCK = 4096  # samples; libvorbis overflows the stack on long blocks


@dataclass(frozen=True)
class OutputFormat:
    """A file format, its depth, and how to treat samples beyond full scale.

    Attributes:
        name: "wav", "flac", "mp3" or "ogg"; also the suffix.
        depth: "16", "24" or, for wav, "float"; None for the default: float for wav, 24 for flac.
            mp3 and ogg have no depth.
        clip: What happens to samples beyond full scale. "none": 16 and 24 bits clip them, other
            formats keep them. "clamp": they are clipped in every format. "rescale": if any stem
            of a song exceeds full scale, all of its stems are scaled down by the same factor
            (`bsm infer` does that; a single AudioWriter cannot).
    """

    name: str
    depth: str | None = None
    clip: str = "none"

    def __post_init__(self) -> None:
        if self.name not in FORMATS:
            raise OptionError(f"Unknown format '{self.name}': choose {', '.join(FORMATS)}.")
        if self.clip not in CLIP_MODES:
            raise OptionError(
                f"Unknown clipping mode '{self.clip}': choose {', '.join(CLIP_MODES)}."
            )
        if self.depth is None:
            object.__setattr__(self, "depth", _DEFAULT_DEPTH.get(self.name))
        if (self.name, self.depth) not in _SUBTYPES:
            depths = [depth for name, depth in _SUBTYPES if name == self.name and depth]
            mend = f"choose {' or '.join(depths)}" if depths else "leave the depth out"
            raise OptionError(f"{self.name} cannot have depth {self.depth}: {mend}.")

    @property
    def subtype(self) -> str:
        """libsndfile's name of the encoding."""
        return _SUBTYPES[self.name, self.depth][0]

    @property
    def sample_bytes(self) -> int:
        """Bytes per sample; 0 for lossy formats."""
        return _SUBTYPES[self.name, self.depth][1]

    @property
    def clips(self) -> bool:
        """Whether samples beyond full scale are clipped."""
        return self.depth in ("16", "24") or self.clip == "clamp"

    def check_rate(self, sample_rate: int) -> None:
        """Raises AudioError if the format does not support the sample rate."""
        if self.name == "mp3":
            possible = sample_rate in _MP3_RATES
        elif self.name == "ogg":
            possible = sample_rate <= _OGG_MAX_RATE
        elif self.name == "flac":
            tens = sample_rate <= 0xFFFF or sample_rate % 10 == 0
            possible = tens and sample_rate <= _FLAC_MAX_RATE
        else:
            possible = True
        if not possible:
            raise AudioError(
                f"{self.name} cannot have a sample rate of {sample_rate} Hz: write .wav files."
            )


class AudioWriter:
    """Writes one audio file; a context manager that closes and verifies the file.

    Attributes:
        clipped: Number of samples that have been clipped so far.
    """

    def __init__(
        self,
        path: Path,
        format: OutputFormat,
        sample_rate: int,
        channels: int,
        *,
        frames: int | None = None,
        tags: Mapping[str, str] | None = None,
        name: Path | None = None,
    ) -> None:
        """Opens a file for writing.

        Args:
            path: The file, which is overwritten.
            format: Format and depth; "rescale" is ignored, as it concerns all stems of a song.
            sample_rate: Hz.
            channels: 1 or 2.
            frames: Samples per channel that will be written, if known: a WAV of more than 4 GB
                must be RF64 from the beginning.
            tags: Title, artist and so on, such as `AudioReader.tags`.
            name: What messages call the file; by default its path.

        Raises:
            AudioError: The format does not support the sample rate, or the file cannot be opened.
        """
        format.check_rate(sample_rate)
        self.clipped = 0
        self._name, self._path, self._format = name or path, path, format
        self._frame_bytes = format.sample_bytes * channels
        self._channels, self._written = channels, 0
        container = format.name.upper()
        if container == "WAV" and (frames or 0) * self._frame_bytes > _WAV_MAX_BYTES:
            container = "RF64"
        self._limit = _WAV_MAX_BYTES if container == "WAV" else None
        try:
            self._sink = _Sink(path)
        except OSError as error:
            raise AudioError(
                f"Cannot write {self._name}: {error.strerror}; write to another folder."
            ) from error
        if format.name == "mp3":
            self._sink.put_in_front(id3_tag(tags or {}))
            tags = None
        try:
            self._file = soundfile.SoundFile(
                self._sink, "w", sample_rate, channels, format.subtype, format=container
            )
            for tag, text in (tags or {}).items():
                setattr(self._file, tag, text)
        except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
            self._sink.close()
            raise self._failed(error) from error

    def __enter__(self) -> AudioWriter:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(soundfile.SoundFileError, RuntimeError):
            self._file.close()  # the block's own exception matters more
        self._sink.close()

    def write(self, block: Samples) -> None:
        """Appends samples (channels, n), full scale 1.

        Raises:
            AudioError: The disk is full, or a WAV of unknown length exceeds 4 GB.
        """
        if self._format.clips:
            self.clipped += int(np.count_nonzero(np.abs(block) > 1))
            block = block.clip(-1, 1)
        for start in range(0, block.shape[1], _BLOCK):
            part = self._encoded(block[:, start : start + _BLOCK].T)
            try:
                self._file.write(part)
            except (soundfile.SoundFileError, RuntimeError, AssertionError) as error:
                raise self._failed(error) from error
            self._written += len(part)
        if self._sink.error:
            raise self._failed(self._sink.error)
        if self._limit and self._written * self._frame_bytes > self._limit:
            raise AudioError(f"{self._name} exceeds 4 GB, the limit of WAV: write .flac files.")

    def close(self) -> None:
        """Finishes the file and verifies it.

        Raises:
            AudioError: Something could not be written, or the file does not hold what it should.
        """
        try:
            self._file.close()
            self._sink.close()
            found = None if self._sink.error else _frames(self._path)
        except (OSError, soundfile.SoundFileError, RuntimeError) as error:
            self._sink.close()
            raise self._failed(error) from error
        if self._sink.error or found != self._written:
            raise self._failed(f"only {found} of {self._written} samples were written")
        if self.clipped:
            logger.warning(
                "%d of %d samples of %s exceeded full scale and were clipped: '--clip rescale' "
                "makes the stems quieter instead, and .wav files with '--depth float' keep them.",
                self.clipped,
                self._written * self._channels,
                self._name,
            )

    def _encoded(self, part: Samples) -> NDArray[np.generic]:
        """Converts samples to integers here, as libsndfile's own conversion rounds down."""
        if self._format.depth not in ("16", "24"):
            return np.ascontiguousarray(part)
        bits = 8 * self._format.sample_bytes
        scale = float(1 << (bits - 1))
        rounded = np.rint(part * np.float32(scale)).clip(-scale, scale - 1)
        integers: NDArray[np.int32] = rounded.astype(np.int32)
        if bits == 16:
            return integers.astype(np.int16)
        return integers * 256  # libsndfile takes the upper 24 of 32 bits

    def _failed(self, error: object) -> AudioError:
        reason = self._sink.error.strerror if self._sink.error else error
        return AudioError(
            f"Cannot write {self._name}: {reason}; make room, or write to another folder."
        )


def _frames(path: Path) -> int:
    """Returns the samples per channel of a file, which libsndfile opens only by short paths."""
    with path.open("rb") as file:
        return int(soundfile.info(file).frames)


class _Sink(io.FileIO):
    """A file that keeps its first error.

    libsndfile's encoders ignore most errors of the operating system: writing FLAC, MP3 or OGG to a
    full disk would seem to succeed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.error: OSError | None = None
        self._start = 0

    def put_in_front(self, data: bytes) -> None:
        """Writes bytes that precede position 0 of `seek` and `tell`."""
        self.write(data)
        self._start = len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Seeks relative to the end of the bytes in front."""
        start = self._start if whence == os.SEEK_SET else 0
        return super().seek(offset + start, whence) - self._start

    def tell(self) -> int:
        """Position relative to the end of the bytes in front."""
        return super().tell() - self._start

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Writes all of the data and returns its length, or keeps the error and returns 0."""
        rest = memoryview(data)
        while rest and self.error is None:
            try:
                rest = rest[super().write(rest) :]
            except OSError as error:
                self.error = error
        return 0 if self.error else len(data)

    def close(self) -> None:
        """Closes the file; keeps errors that the file system reports only now."""
        if self.closed:
            return
        try:
            super().close()
        except OSError as error:
            self.error = self.error or error
            super().close()
