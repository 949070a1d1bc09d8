"""The two backends of the reader: soundfile (libsndfile) and PyAV (FFmpeg)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from bsmamba2.errors import AudioError, MissingExtraError
from bsmamba2.files import c_path
from bsmamba2.runtime.chunking import Samples
from bsmamba2.runtime.riff import open_wav

_BLOCK = 1 << 16  # samples per channel
_ENDLESS = 1 << 62  # libsndfile's count for "unknown" is 2^63 - 1


class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that soundfile does not seek in after every read.

    Those seeks hide the decoder's error behind one of their own, and fail at the end of a FLAC
    whose header states no length.
    """

    def seekable(self) -> bool:
        """False."""
        return False


class SoundfileDecoder:
    """A `Decoder` over soundfile."""

    def __init__(self, path: Path) -> None:
        """Opens a file; raises AudioError if it is no audio or truncated."""
        self._path = path
        self._source = open_wav(path)
        try:
            self._file = _Stream(self._source or c_path(path))
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise _no_audio(path) from error
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.frames: int | None = self._file.frames if self._file.frames < _ENDLESS else None
        self.missing_allowed: int | None = 0
        if self._file.format == "MP3" and lacks_length(path):
            self.missing_allowed = None
        if self._file.format == "FLAC" and self.frames:
            self._check_end(self.frames)

    def _check_end(self, frames: int) -> None:
        """A truncated FLAC fails at its last sample, which is better known before the work."""
        try:
            self._file.seek(frames - 1)
            complete = len(self._file.read(1)) == 1
            self._file.seek(0)
        except (soundfile.SoundFileError, RuntimeError):
            complete = False
        if not complete:
            self.close()
            raise AudioError(
                f"{self._path} is truncated or damaged: its end cannot be decoded; "
                "copy or download it again."
            )

    def decode(self) -> Iterator[Samples]:
        """Blocks (channels, n) to the end; raises AudioError where decoding fails."""
        done = 0
        while True:
            try:
                block = self._file.read(_BLOCK, dtype="float32", always_2d=True)
            except (soundfile.SoundFileError, RuntimeError) as error:
                raise _broken(self._path, done / self.sample_rate) from error
            if not len(block):
                return
            done += len(block)
            yield block.T

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        if self._source is not None:
            self._source.close()


class AvDecoder:
    """A `Decoder` over PyAV: the first audio stream of any container."""

    def __init__(self, path: Path) -> None:
        """Opens a file; raises AudioError if it has no audio, MissingExtraError without PyAV."""
        try:
            import av
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"Reading {path}", "av") from error
        self._errors: tuple[type[Exception], ...] = (av.FFmpegError,)
        self._path = path
        try:
            # Titles need not be UTF-8, and nobody reads them here.
            self._container = av.open(str(path), metadata_errors="replace")
        except self._errors as error:
            raise _no_audio(path) from error
        if not self._container.streams.audio:
            self.close()
            raise AudioError(f"{path} has no audio track: name a file with sound.")
        stream = self._container.streams.audio[0]
        self._resampler = av.AudioResampler(format="fltp")  # planar float32, same rate
        self._frames = self._container.decode(stream)
        # Rate and channels are sure only after decoding has begun (HE-AAC doubles its rate).
        self._first = self._next(0.0)
        context = stream.codec_context if self._first is None else self._first
        self.sample_rate = int(context.sample_rate)
        self.channels = int(context.layout.nb_channels)
        ticks, tick_s = stream.duration, stream.time_base
        seconds = ticks * tick_s if ticks and tick_s else None
        self.frames = round(seconds * self.sample_rate) if seconds else None
        # Only MP4 and its kin count their samples; elsewhere a duration is an estimate.
        counted = "mp4" in self._container.format.name
        self.missing_allowed = self.sample_rate // 2 if counted else None

    def decode(self) -> Iterator[Samples]:
        """Blocks (channels, n) to the end; raises AudioError where decoding fails."""
        frame, done = self._first, 0
        while frame is not None:
            seconds = done / self.sample_rate
            if (frame.sample_rate, frame.layout.nb_channels) != (self.sample_rate, self.channels):
                raise AudioError(
                    f"{self._path} changes its rate or channels at {seconds:.2f} s: "
                    "convert it to WAV first."
                )
            for part in self._resampler.resample(frame):
                samples: Samples = part.to_ndarray().astype(np.float32, copy=False)
                done += samples.shape[1]
                yield samples
            frame = self._next(seconds)

    def _next(self, seconds: float) -> Any:
        """The next decoded frame, None at the end."""
        try:
            return next(self._frames, None)
        except self._errors as error:
            raise _broken(self._path, seconds) from error

    def close(self) -> None:
        """Closes the file."""
        self._container.close()


def lacks_length(path: Path) -> bool:
    """Whether an MP3 file states no length in its first frame (Xing, Info or VBRI header).

    libsndfile guesses such a length from the first frames' bit rate and reads no further.
    """
    with path.open("rb") as file:
        start = file.read(10)
        if start[:3] == b"ID3" and len(start) == 10:
            size = functools.reduce(lambda bits, byte: bits << 7 | byte & 0x7F, start[6:])
            file.seek(10 + size)
        else:
            file.seek(0)
        frame = file.read(4096)
    return not any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))


def _no_audio(path: Path) -> AudioError:
    return AudioError(
        f"{path} is not audio or is damaged: play it to check, then copy or convert it again."
    )


def _broken(path: Path, seconds: float) -> AudioError:
    return AudioError(
        f"{path} is damaged: decoding fails after {seconds:.2f} s; copy or download it again."
    )
