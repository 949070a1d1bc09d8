"""Reads audio files of all formats, in blocks.

soundfile reads WAV, FLAC, OGG and whatever else libsndfile supports; PyAV (FFmpeg), if it is
installed, reads MP3 and everything else. Without PyAV, soundfile reads MP3, too. A reader yields
all samples that a header promises, or raises.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bsmamba2.errors import AudioError, MissingExtraError, OptionError
from bsmamba2.runtime.audio.joined import open_all
from bsmamba2.runtime.audio.mp3 import begins_as_mpeg, has_constant_bit_rate, stated_samples
from bsmamba2.runtime.audio.samples import Samples, check_samples
from bsmamba2.runtime.audio.source_file import SourceFile
from bsmamba2.system.files import existing_file

if TYPE_CHECKING:
    from bsmamba2.runtime.audio.decoding import AvDecoder, SoundfileDecoder

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "wave", "bwf", "rf64", "w64", "flac", "mp3", "ogg", "oga", "opus", "aif", "aiff"),
        *("aifc", "au", "snd", "caf", "m4a", "m4b", "mp4", "aac", "ac3", "alac", "ape", "dts"),
        *("mka", "mkv", "mov", "mp2", "tta", "webm", "wma", "wv"),
    )
)
"""Suffixes of the files in a folder that are taken for songs; a decoder judges by the content."""
MAX_CHANNELS = 2
MIN_RATE, MAX_RATE = 1000, 768_000
"""Accepted sample rates in Hz: a damaged header that says 1 Hz would make hours of audio."""


@dataclass(frozen=True)
class Section:
    """The part of a song to read; its ends are rounded to samples, and it has at least one.

    Attributes:
        start_s: Seconds from the beginning of the song.
        duration_s: Length in seconds; None, or more than there is, reads to the end of the song.
    """

    start_s: float = 0.0
    duration_s: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < math.inf:
            raise OptionError(f"The start must be 0 or more seconds, not {self.start_s:g}.")
        if self.duration_s is not None and not 0 < self.duration_s < math.inf:
            raise OptionError(f"The duration must be above 0 seconds, not {self.duration_s:g}.")

    def samples(self, sample_rate: int) -> tuple[int, int | None]:
        """Returns the index of the first sample, and of the one after the last (None: the end)."""
        start = round(self.start_s * sample_rate)
        if self.duration_s is None:
            return start, None
        return start, max(start + 1, round((self.start_s + self.duration_s) * sample_rate))


WHOLE = Section()


class AudioReader:
    """Reads an audio file, or a section of it, once from beginning to end; a context manager.

    Attributes:
        path: The file.
        name: What messages call it.
        sample_rate: Hz.
        channels: 1 or 2.
        frames: Samples per channel in the section; None if unknown, an estimate for some lossy
            formats.
        exact: Whether `frames` must be the exact number.
        tags: Title, artist and so on, as far as the file states them: name -> text.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        section: Section = WHOLE,
        downmix: bool = False,
        name: str | None = None,
    ) -> None:
        """Opens a file.

        Args:
            path: A file of any format that soundfile or PyAV can read.
            section: The part to read; by default the whole file.
            downmix: Mixes more than two channels, such as 5.1, down to stereo by ITU-R BS.775;
                otherwise they are refused. Needs PyAV.
            name: What messages call the file; by default its path.

        Raises:
            BsmError: The file does not exist or cannot be read.
            AudioError: The file is not audio, is truncated, or has more than two channels, or the
                section begins after its end.
            MissingExtraError: The format or `downmix` needs PyAV, which is not installed.
        """
        self.name = name = name or str(path)
        self.path = existing_file(path, name)
        with ExitStack() as stack:
            try:
                self._file = stack.enter_context(SourceFile(self.path))
            except OSError as error:
                raise _unreadable(name, error) from error
            self._before = os.fstat(self._file.fileno())
            if self._before.st_size == 0:
                raise AudioError(f"{name} is empty (0 bytes): copy or download it again.")
            with self._reading():
                open_one = partial(_open, downmix=downmix)
                self._decoder = stack.enter_context(closing(open_all(self._file, name, open_one)))
            self._check_unchanged()
            self.sample_rate = self._decoder.sample_rate
            self.channels = self._decoder.channels
            self.tags = self._decoder.tags
            self.exact = self._decoder.missing_allowed == 0
            self._start, self._stop = section.samples(self.sample_rate)
            self.frames = self._expected()
            self._check_header()
            self._files = stack.pop_all()

    def _check_header(self) -> None:
        """Raises AudioError if the song cannot be separated."""
        if not MIN_RATE <= self.sample_rate <= MAX_RATE:
            raise AudioError(
                f"{self.name} has a sample rate of {self.sample_rate} Hz, but only {MIN_RATE} to "
                f"{MAX_RATE} Hz can be separated: copy it again if its header is damaged, "
                "otherwise resample it."
            )
        if self.channels > MAX_CHANNELS:
            raise AudioError(
                f"{self.name} has {self.channels} channels, but at most {MAX_CHANNELS} can be "
                "separated: mix it down to stereo first, or let 'bsm infer --downmix' do so."
            )
        if self.frames == 0 and self._start:
            raise self._too_short(self._decoder.frames or 0)

    def _expected(self) -> int | None:
        """Returns the samples per channel in the section, by the header; None if unknown."""
        whole = self._decoder.frames
        if whole is None:
            return None if self._stop is None else self._stop - self._start
        there = min(whole, self._stop or whole) - self._start
        if there <= 0 and self._decoder.missing_allowed is None:
            return None  # an estimate is no reason to refuse the section
        return max(0, there)

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._files.close()

    def blocks(self) -> Iterator[Samples]:
        """Yields the samples in blocks: float32 (channels, n), full scale 1.

        Raises:
            AudioError: The file holds no samples, NaN or Inf, or damaged or truncated data, or was
                modified while it was read. (A file that was replaced is still read to its end.)
        """
        at = self._start
        with self._reading():
            for block in self._decoder.decode(self._start):
                if self._stop is not None:
                    block = block[:, : self._stop - at]
                check_samples(block, at, self.sample_rate, self.name)
                at += block.shape[1]
                yield block
                if at == self._stop:
                    self._check_unchanged()
                    break
            else:
                self._check_unchanged()
                self._check_end(at)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Raises AudioError if the file cannot be read, whatever the decoder makes of its end."""
        damage = None
        try:
            yield
        except AudioError as error:
            damage = error
        if self._file.error:
            raise _unreadable(self.name, self._file.error) from damage
        if damage:
            raise damage

    def _check_unchanged(self) -> None:
        """Raises AudioError if the file was written to, which would mix old and new samples.

        If another file has taken its place, the one that was opened is still read.
        """
        now, before = os.fstat(self._file.fileno()), self._before
        if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise AudioError(
                f"{self.name} was changed while it was read: wait until it is complete, and "
                "separate it again."
            )

    def _check_end(self, end: int) -> None:
        """Raises AudioError if the song ended too early, at sample `end`."""
        promised, allowed = self._decoder.frames, self._decoder.missing_allowed
        if promised is not None and allowed is not None and end < promised - allowed:
            only = "less than" if end == self._start > 0 else "only"
            raise AudioError(
                f"{self.name} is damaged or truncated: {only} {end / self.sample_rate:.2f} of "
                f"{promised / self.sample_rate:.2f} s can be decoded; copy or download it again."
            )
        if end == 0:
            raise AudioError(f"{self.name} holds no samples: record or export it again.")
        if end == self._start:
            raise self._too_short(None)

    def _too_short(self, frames: int | None) -> AudioError:
        length = "" if frames is None else f" It is {frames / self.sample_rate:.2f} s long."
        return AudioError(
            f"{self.name} ends before the start at {self._start / self.sample_rate:.2f} s: "
            f"choose an earlier start.{length}"
        )


def _open(file: io.BufferedReader, name: str, *, downmix: bool) -> SoundfileDecoder | AvDecoder:
    """Begins to decode: with libsndfile if it supports the file, otherwise with PyAV."""
    import soundfile

    from bsmamba2.runtime.audio.decoding import AvDecoder, SoundfileDecoder

    if begins_as_mpeg(file):  # libsndfile would print what it thinks of damage
        try:
            return AvDecoder(file, name)
        except MissingExtraError as error:
            if stated_samples(file) is None and not has_constant_bit_rate(file):
                what = f"{name} does not state its length: reading all of it"
                raise MissingExtraError(what, "av") from error
    try:
        decoder = SoundfileDecoder(file, name)
    except (soundfile.SoundFileError, RuntimeError):
        return AvDecoder(file, name, downmix=downmix)
    if downmix and decoder.channels > MAX_CHANNELS:
        decoder.close()
        mixed = AvDecoder(decoder.source, name, downmix=True)
        mixed.frames, mixed.missing_allowed = decoder.frames, decoder.missing_allowed
        return mixed
    return decoder


def _unreadable(name: str, error: OSError) -> AudioError:
    return AudioError(f"{name} cannot be read: {error.strerror}; try again.")
