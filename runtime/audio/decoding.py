"""The two backends of the reader: soundfile (libsndfile) and PyAV (FFmpeg).

Either has `sample_rate`, `channels`, `frames` (samples per channel by the header, None if unknown),
`missing_allowed` (how many fewer may come without a fault, None if `frames` is an estimate) and
`tags`, and decodes once. It seeks only where that gives the samples that decoding all would give.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from bsmamba2.errors import AudioError, MissingExtraError
from bsmamba2.runtime.audio.riff import open_wav
from bsmamba2.runtime.audio.samples import Samples
from bsmamba2.runtime.audio.tags import clean_tags
from bsmamba2.system.files import c_path

_BLOCK = 1 << 16  # samples per channel
_EXACT_SEEKS = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
"""Beginnings of encodings whose samples can be found by counting; others depend on those before."""
_CONTAINERS = ",".join(
    (
        *("aac", "ac3", "aiff", "amr", "ape", "asf", "avi", "caf", "dts", "eac3", "flac", "flv"),
        *("matroska", "mov", "mp3", "mpeg", "mpegts", "ogg", "tta", "w64", "wav", "webm", "wv"),
    )
)
"""What FFmpeg may take a file for: none of its formats that open further files or addresses."""
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
    """A file that libsndfile knows."""

    def __init__(self, path: Path, name: str) -> None:
        """Opens a file, called `name` in messages.

        Raises:
            AudioError: It is truncated.
            SoundFileError: libsndfile does not know its format.
        """
        self._name = name
        self._source = open_wav(path, name)
        self._file = _Stream(self._source or c_path(path))
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.frames: int | None = self._file.frames if self._file.frames < _ENDLESS else None
        self.missing_allowed: int | None = 0
        self.guesses_length = self._file.format == "MP3" and _lacks_length(path)
        if self.guesses_length:
            self.missing_allowed = None
        self.tags = clean_tags(self._file.copy_metadata())
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
                f"{self._name} is truncated or damaged: its end cannot be decoded; "
                "copy or download it again."
            )

    def decode(self, start: int = 0) -> Iterator[Samples]:
        """Blocks (channels, n) from a sample to the end; raises AudioError where that fails."""
        if start and self.frames is not None and self._file.subtype.startswith(_EXACT_SEEKS):
            return self._read(start)
        return skip(self._read(0), start)

    def _read(self, start: int) -> Iterator[Samples]:
        done = start
        while True:
            try:
                if start and done == start:
                    self._file.seek(start)
                block = self._file.read(_BLOCK, dtype="float32", always_2d=True)
            except (soundfile.SoundFileError, RuntimeError) as error:
                raise _broken(self._name, done / self.sample_rate) from error
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
    """One audio track of any container that FFmpeg knows.

    Of several tracks it is the first that the file marks as its default, or the first of all.
    What a container says of priming samples is applied by FFmpeg; padding at the end stays.
    """

    def __init__(self, path: Path, name: str) -> None:
        """Opens a file, called `name` in messages.

        Raises:
            AudioError: It has no audio.
            MissingExtraError: PyAV is not installed.
        """
        try:
            import av
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"Reading {name}", "av") from error
        self._errors: tuple[type[Exception], ...] = (av.FFmpegError,)
        self._name = name
        try:
            # Titles need not be UTF-8.
            self._container = av.open(
                str(path), metadata_errors="replace", options={"format_whitelist": _CONTAINERS}
            )
        except self._errors as error:
            raise no_audio(name) from error
        stream = self._choose_track()
        self._resampler = av.AudioResampler(format="fltp")  # planar float32, same rate
        self._frames = self._container.decode(stream)
        # Rate and channels are sure only after decoding has begun (HE-AAC doubles its rate).
        self._first = self._next(0.0)
        context = stream.codec_context if self._first is None else self._first
        self.sample_rate = int(context.sample_rate)
        self.channels = int(context.layout.nb_channels)
        seconds, counted = self._duration(stream)
        self.frames = round(seconds * self.sample_rate) if seconds else None
        self.missing_allowed = self.sample_rate // 2 if counted else None
        self.tags = clean_tags(stream.metadata, self._container.metadata)

    def _choose_track(self) -> Any:
        """The audio stream; raises AudioError if there is none."""
        tracks = self._container.streams.audio
        if not tracks:
            self.close()
            raise AudioError(f"{self._name} has no audio track: name a file with sound.")
        defaults = [track for track in tracks if track.disposition & 1]  # AV_DISPOSITION_DEFAULT
        return (defaults or tracks)[0]

    def _duration(self, stream: Any) -> tuple[float | None, bool]:
        """Seconds by the header if it has them, and whether a shorter track is a damaged one."""
        name, ticks = self._container.format.name, stream.duration
        if ticks and stream.time_base:
            # Of these only MP4 and its kin count their samples; elsewhere it is an estimate.
            return float(ticks * stream.time_base), "mp4" in name
        # Matroska's is that of its longest track. FFmpeg counts in microseconds.
        alone = "matroska" in name and len(self._container.streams) == 1
        return (self._container.duration or 0) / 1e6 or None, alone

    def decode(self, start: int = 0) -> Iterator[Samples]:
        """Blocks (channels, n) from a sample to the end; raises AudioError where that fails."""
        return skip(self._read(), start)

    def _read(self) -> Iterator[Samples]:
        frame, done = self._first, 0
        while frame is not None:
            seconds = done / self.sample_rate
            if (frame.sample_rate, frame.layout.nb_channels) != (self.sample_rate, self.channels):
                raise AudioError(
                    f"{self._name} changes its rate or channels at {seconds:.2f} s: "
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
            raise _broken(self._name, seconds) from error

    def close(self) -> None:
        """Closes the file."""
        self._container.close()


def skip(blocks: Iterable[Samples], count: int) -> Iterator[Samples]:
    """The blocks without their first samples."""
    for block in blocks:
        if block.shape[1] > count:
            yield block[:, count:]
        count = max(0, count - block.shape[1])


def _lacks_length(path: Path) -> bool:
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


def no_audio(name: str) -> AudioError:
    """The error of a file that no backend knows."""
    return AudioError(
        f"{name} is not audio or is damaged: play it to check, then copy or convert it again."
    )


def _broken(name: str, seconds: float) -> AudioError:
    return AudioError(
        f"{name} is damaged: decoding fails after {seconds:.2f} s; copy or download it again."
    )
