"""Decodes files that were joined in one: each by itself, one after the other."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from bsmamba2.errors import AudioError
from bsmamba2.runtime.audio.joints import find_starts
from bsmamba2.runtime.audio.samples import Samples, skip
from bsmamba2.runtime.audio.source_file import Part


class Decoder(Protocol):
    """What all decoders have; see `decoding`."""

    sample_rate: int
    channels: int
    frames: int | None
    missing_allowed: int | None
    tags: dict[str, str]

    def decode(self, start: int = 0) -> Iterator[Samples]:
        """Yields blocks (channels, n) from sample `start` on; raises AudioError if that fails."""

    def close(self) -> None:
        """Ends decoding; the file stays open."""


def open_all(
    file: io.BufferedReader, name: str, begin: Callable[[io.BufferedReader, str], Decoder]
) -> Decoder:
    """Begins to decode all that is in an open file, called `name` in messages.

    Args:
        file: One file, or several that were joined.
        name: What messages call it.
        begin: Begins to decode one file, given such a name.

    Raises:
        AudioError: A file cannot be read, or has another sample rate or number of channels.
        MissingExtraError: Its format needs PyAV, which is not installed.
    """
    starts = find_starts(file)
    if len(starts) == 1:
        return begin(file, name)
    stops = [*starts[1:], file.seek(0, os.SEEK_END)]
    files = []
    for number, (start, stop) in enumerate(zip(starts, stops, strict=True), 1):
        part = Part(file, start, stop)
        files.append(partial(begin, part, f"{name} (file {number} of {len(starts)} in it)"))
    return JoinedDecoder(files, name)


class JoinedDecoder:
    """Decodes one file after another as one song, with the tags of the first."""

    def __init__(self, files: Sequence[Callable[[], Decoder]], name: str) -> None:
        """Begins to decode every file once, for its length; `name` is that of all in messages."""
        self._files = files
        self._current = first = files[0]()
        self.sample_rate, self.channels, self.tags = first.sample_rate, first.channels, first.tags
        self.frames, self.missing_allowed = first.frames, first.missing_allowed
        for number, begin in enumerate(files[1:], 2):
            self.close()
            self._current = decoder = begin()
            if (decoder.sample_rate, decoder.channels) != (self.sample_rate, self.channels):
                raise AudioError(
                    f"{name} is {len(files)} files joined in one, and file {number} has another "
                    "sample rate or number of channels: split it, or convert it to WAV first."
                )
            self.frames = _sum(self.frames, decoder.frames)
            self.missing_allowed = _sum(self.missing_allowed, decoder.missing_allowed)

    def decode(self, start: int = 0) -> Iterator[Samples]:
        """See Decoder."""
        return skip(self._read(), start)

    def _read(self) -> Iterator[Samples]:
        for begin in self._files:
            self.close()
            self._current = begin()
            yield from self._current.decode()

    def close(self) -> None:
        """See Decoder."""
        self._current.close()


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
