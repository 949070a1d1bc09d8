"""The two backends of the reader: soundfile (libsndfile) and PyAV (FFmpeg).

A decoder has `sample_rate`, `channels`, `frames` (samples per channel according to the header, None
if unknown), `missing_allowed` (how many fewer may be decoded without an error, None if `frames` is
an estimate) and `tags`. It decodes once, and seeks only if that yields the same samples as decoding
from the beginning.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile

from bsmamba2.errors import AudioError, MissingExtraError
from bsmamba2.runtime.audio.mp3 import is_mpeg, stated_samples
from bsmamba2.runtime.audio.riff import open_wav
from bsmamba2.runtime.audio.samples import Samples, skip
from bsmamba2.runtime.audio.tags import clean_tags

_BLOCK = 1 << 16  # samples per channel
_BUFFER = 1 << 16  # bytes that FFmpeg reads at once
EXACT_SEEKS = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
"""Prefixes of encodings in which seeking is exact; in others, samples depend on earlier ones."""
_CONTAINERS = ",".join(
    (
        *("aac", "ac3", "aiff", "amr", "ape", "asf", "avi", "caf", "dts", "eac3", "flac", "flv"),
        *("matroska", "mov", "mp3", "mpeg", "mpegts", "ogg", "tta", "w64", "wav", "webm", "wv"),
    )
)
"""Formats that FFmpeg may detect; those that open other files or addresses are left out."""
_ENDLESS = 1 << 62  # libsndfile reports 2^63 - 1 frames for an unknown length


class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A SoundFile that does not seek after every read.

    soundfile's seeks hide the decoder's error behind their own, and fail at the end of a FLAC
    whose header states no length.
    """

    def seekable(self) -> bool:
        """Returns False, so that soundfile never seeks."""
        return False


class SoundfileDecoder:
    """Decodes a file that libsndfile supports."""

    def __init__(self, file: io.BufferedReader, name: str) -> None:
        """Begins to decode an open file, called `name` in messages.

        Raises:
            AudioError: The file is truncated.
            SoundFileError: libsndfile does not support its format.
        """
        self._name = name
        self.source = open_wav(file, name) or file
        self.source.seek(0)
        self._file = _Stream(self.source)
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.frames: int | None = self._file.frames if self._file.frames < _ENDLESS else None
        self.missing_allowed: int | None = 0
        is_mp3 = self._file.subtype == "MPEG_LAYER_III"  # in a WAV, too, which states no length
        if is_mp3 and (self._file.format != "MP3" or stated_samples(file) is None):
            self.missing_allowed = None
        self.tags = clean_tags(self._file.copy_metadata())
        if self._file.format == "FLAC" and self.frames:
            self._check_end(self.frames)

    def _check_end(self, frames: int) -> None:
        """Decodes the last sample, so that a truncated FLAC fails before its separation."""
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
        """Yields blocks (channels, n) from sample `start` on; raises AudioError if that fails."""
        if start and self.frames is not None and self._file.subtype.startswith(EXACT_SEEKS):
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
        """Ends decoding; the file stays open."""
        self._file.close()


class AvDecoder:
    """Decodes one audio track of any container that FFmpeg supports.

    If there are several, this is the first one marked as default, otherwise the first one.
    FFmpeg drops priming samples as the container specifies; padding at the end stays.
    """

    def __init__(self, file: io.BufferedReader, name: str, *, downmix: bool = False) -> None:
        """Begins to decode an open file, called `name` in messages.

        Args:
            file: The file.
            name: Its name.
            downmix: Mixes more than two channels down to stereo by ITU-R BS.775, without
                normalisation: L + C / sqrt(2) + Ls / sqrt(2), and so on; LFE is left out.

        Raises:
            AudioError: The file has no audio, or more than two channels of unknown places.
            MissingExtraError: PyAV is not installed, or older than 17.1.
        """
        try:
            import av

            self._default = int(av.stream.Disposition.default)  # no number in older versions
        except (ModuleNotFoundError, AttributeError, TypeError) as error:
            what = "Mixing down" if downmix else f"libsndfile cannot read {name}; trying FFmpeg"
            raise MissingExtraError(what, "av") from error
        self._errors: tuple[type[Exception], ...] = (av.FFmpegError,)
        self._name = name
        mpeg = is_mpeg(file)
        stated = stated_samples(file) if mpeg else None
        try:
            # FFmpeg does not detect very short MPEG files.
            self._container = open_container(file, "mp3" if mpeg else None)
        except self._errors as error:
            raise no_audio(name) from error
        stream = self._choose_track()
        self._frames = self._container.decode(stream)
        # Sample rate and channels are certain only after the first frame (HE-AAC doubles its rate).
        self._first = self._next(0.0)
        context = stream.codec_context if self._first is None else self._first
        self.sample_rate = int(context.sample_rate)
        self.channels = self._decoded_channels = int(context.layout.nb_channels)
        layout = None
        if downmix and self.channels > 2:
            self._check_layout(context.layout.name)
            layout, self.channels = "stereo", 2
        self._resampler = av.AudioResampler("fltp", layout)  # planar float32, same sample rate
        seconds, counted = self._duration(stream)
        self.frames = stated or (round(seconds * self.sample_rate) if seconds else None)
        self.missing_allowed = 0 if stated else self.sample_rate // 2 if counted else None
        self.tags = clean_tags(stream.metadata, self._container.metadata)

    def _choose_track(self) -> Any:
        """Returns the audio stream to decode; raises AudioError if there is none."""
        tracks = self._container.streams.audio
        if not tracks:
            self.close()
            raise AudioError(f"{self._name} has no audio track: name a file with sound.")
        defaults = [track for track in tracks if track.disposition & self._default]
        return (defaults or tracks)[0]

    def _duration(self, stream: Any) -> tuple[float | None, bool]:
        """Returns the header's duration in seconds, or None, and whether it is exact."""
        name, ticks = self._container.format.name, stream.duration
        if ticks and stream.time_base:
            # Only the MP4 family counts its samples; other headers hold an estimate.
            return float(ticks * stream.time_base), "mp4" in name
        # Matroska states only the duration of its longest track. FFmpeg counts in microseconds.
        alone = "matroska" in name and len(self._container.streams) == 1
        return (self._container.duration or 0) / 1e6 or None, alone

    def decode(self, start: int = 0) -> Iterator[Samples]:
        """Yields blocks (channels, n) from sample `start` on; raises AudioError if that fails."""
        return skip(self._read(), start)

    def _check_layout(self, layout: str) -> None:
        """Raises AudioError unless it is known for which loudspeakers the channels are."""
        import av

        named = not layout.endswith(" channels")
        # Many a WAV does not name them; 5.1 and 7.1 have one usual order.
        if named or self.channels in (6, 8):
            with contextlib.suppress(*self._errors):
                av.AudioResampler("fltp", "stereo").resample(self._first)
                return
        self.close()
        raise AudioError(
            f"{self._name} has {self.channels} channels and does not say for which loudspeakers "
            "they are: mix it down to stereo first."
        )

    def _read(self) -> Iterator[Samples]:
        frame, done = self._first, 0
        end = self.frames if self.frames and self.missing_allowed == 0 else sys.maxsize
        while frame is not None:
            seconds = done / self.sample_rate
            form = (frame.sample_rate, frame.layout.nb_channels)
            if form != (self.sample_rate, self._decoded_channels):
                raise AudioError(
                    f"{self._name} changes its sample rate or channels at {seconds:.2f} s: "
                    "convert it to WAV first."
                )
            for part in self._resampler.resample(frame):
                samples: Samples = part.to_ndarray().astype(np.float32, copy=False)
                samples = samples[:, : end - done]
                done += samples.shape[1]
                yield samples
            if done == end:  # what follows is no sound
                return
            frame = self._next(seconds)

    def _next(self, seconds: float) -> Any:
        """Returns the next decoded frame, or None at the end."""
        try:
            return next(self._frames, None)
        except self._errors as error:
            raise _broken(self._name, seconds) from error

    def close(self) -> None:
        """Ends decoding; the file stays open."""
        self._container.close()


def open_container(file: io.BufferedReader, format: str | None = None) -> Any:
    """Opens a file with FFmpeg, which can open no other file and no address; needs PyAV.

    Args:
        file: The file.
        format: FFmpeg's name of its format; None to detect it.

    Raises:
        FFmpegError: FFmpeg does not support its format.
    """
    import av

    file.seek(0)
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}
    # Tags are not always valid UTF-8.
    return av.open(
        file, format=format, metadata_errors="replace", options=options, buffer_size=_BUFFER
    )


def no_audio(name: str) -> AudioError:
    """The error for a file that no backend can read."""
    return AudioError(
        f"{name} is not audio or is damaged: play it to check, then copy or convert it again."
    )


def _broken(name: str, seconds: float) -> AudioError:
    return AudioError(
        f"{name} is damaged: decoding fails after {seconds:.2f} s; copy or download it again."
    )
