"""Decodes files that were joined in one: each by itself, one after the other."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from bsmamba2.errors import AudioError
from bsmamba2.runtime.audio.joints import find_starts
from bsmamba2.runtime.audio.samples import Samples, skip
from bsmamba2.runtime.audio.source_file import Part

if TYPE_CHECKING:
    from bsmamba2.runtime.audio.decoding import AvDecoder, SoundfileDecoder

    OpenOne = Callable[[io.BufferedReader, str], SoundfileDecoder | AvDecoder]


def open_all(
    file: io.BufferedReader, name: str, open_one: OpenOne
) -> SoundfileDecoder | AvDecoder | JoinedDecoder:
    """Begins to decode all that is in an open file, called `name` in messages.

    Args:
        file: One file, or several that were joined.
        name: What messages call it.
        open_one: Begins to decode one file, given such a name.

    Raises:
        AudioError: A file cannot be read, or has another sample rate or number of channels.
        MissingExtraError: Its format needs PyAV, which is not installed.
    """
    starts = find_starts(file)
    if len(starts) == 1:
        return open_one(file, name)
    return JoinedDecoder(file, starts, name, open_one)


class JoinedDecoder:
    """Decodes one file after another as one song, with the tags of the first; see `decoding`."""

    def __init__(
        self, file: io.BufferedReader, starts: Sequence[int], name: str, open_one: OpenOne
    ) -> None:
        """Begins to decode every file once, for its length; see `open_all`."""
        self._file, self._name, self._open_one = file, name, open_one
        self._bounds = list(pairwise([*starts, file.seek(0, os.SEEK_END)]))
        self._current = first = self._open(0)
        self.sample_rate, self.channels, self.tags = first.sample_rate, first.channels, first.tags
        self.frames, self.missing_allowed = first.frames, first.missing_allowed
        for index in range(1, len(starts)):
            self.close()
            self._current = decoder = self._open(index)
            if (decoder.sample_rate, decoder.channels) != (self.sample_rate, self.channels):
                raise AudioError(
                    f"{name} is {len(starts)} files joined in one, and file {index + 1} has "
                    f"{decoder.sample_rate} Hz and {decoder.channels} channels, but the first has "
                    f"{self.sample_rate} Hz and {self.channels}: split it into its files."
                )
            self.frames = _sum(self.frames, decoder.frames)
            self.missing_allowed = _sum(self.missing_allowed, decoder.missing_allowed)

    def _open(self, index: int) -> SoundfileDecoder | AvDecoder:
        part = Part(self._file, *self._bounds[index])
        name = f"{self._name} (file {index + 1} of {len(self._bounds)} in it)"
        return self._open_one(part, name)

    def decode(self, start: int = 0) -> Iterator[Samples]:
        """Yields blocks (channels, n) from sample `start` on; raises AudioError if that fails."""
        return skip(self._read(), start)

    def _read(self) -> Iterator[Samples]:
        for index in range(len(self._bounds)):
            self.close()
            self._current = self._open(index)
            yield from self._current.decode()

    def close(self) -> None:
        """Ends decoding; the file stays open."""
        self._current.close()


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
