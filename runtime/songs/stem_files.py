"""The files of one song: its stems, and a picture of them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np

from bsmamba2.errors import AudioError
from bsmamba2.runtime.audio.pictures import SongPicture
from bsmamba2.runtime.audio.reader import AudioReader
from bsmamba2.runtime.audio.samples import Samples
from bsmamba2.runtime.audio.writing import AudioWriter, OutputFormat

logger = logging.getLogger(__name__)

_BLOCK = 1 << 16  # samples


class StemFiles:
    """Writes the stems of a song side by side; a context manager that completes the files.

    To rescale, the song's peak must be known first: then the stems wait in a temporary file, as
    float32, and are written at the end.
    """

    def __init__(
        self,
        song: AudioReader,
        paths: Mapping[str, Path],
        names: Mapping[str, Path],
        output: OutputFormat,
        picture: Path | None = None,
    ) -> None:
        """Opens the files.

        Args:
            song: Whose stems they are; gives rate, channels, length and tags.
            paths: Stem -> the file to write.
            names: Stem -> its later name, for messages.
            output: Of all stems.
            picture: A PNG to write.

        Raises:
            AudioError: The format cannot have the rate, or a file cannot be written.
        """
        self._song, self._output, self._picture_path = song, output, picture
        self._picture = SongPicture(song.sample_rate) if picture else None
        self._peak = 0.0
        self._waiting: dict[str, IO[bytes]] = {}
        with ExitStack() as stack:
            self._writers = {
                stem: stack.enter_context(self._writer(path, names[stem]))
                for stem, path in paths.items()
            }
            if output.clip == "rescale":
                for stem, path in paths.items():
                    self._waiting[stem] = stack.enter_context(_temporary(path.parent))
            self._files = stack.pop_all()

    def _writer(self, path: Path, name: Path) -> AudioWriter:
        return AudioWriter(
            path,
            self._output,
            self._song.sample_rate,
            self._song.channels,
            frames=self._song.frames,
            tags=self._song.tags,
            name=name,
        )

    def __enter__(self) -> StemFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            self._complete()
        else:
            self._files.__exit__(*exception)  # type: ignore[arg-type]

    def write(self, stems: Mapping[str, Samples]) -> None:
        """Appends a block of every stem, (channels, n) each; all stems add up to the mixture.

        Raises:
            AudioError: The disk is full, or a WAV of unknown length passes 4 GB.
        """
        if self._picture:
            self._picture.add({"mixture": sum_of(stems), **stems})
        for stem, writer in self._writers.items():
            block = stems[stem]
            if not self._waiting:
                writer.write(block)
                continue
            self._peak = max(self._peak, float(np.abs(block).max(initial=0)))
            try:
                self._waiting[stem].write(np.ascontiguousarray(block.T, np.float32).tobytes())
            except OSError as error:
                raise _no_room(error) from error

    def _complete(self) -> None:
        with self._files:
            if self._peak > 1:
                logger.warning(
                    "The stems of %s are %.2f dB quieter, so that none passes full scale.",
                    self._song.name,
                    20 * np.log10(self._peak),
                )
            for stem, file in self._waiting.items():
                self._write_scaled(self._writers[stem], file)
            if self._picture and self._picture_path:
                self._picture_path.write_bytes(self._picture.png())

    def _write_scaled(self, writer: AudioWriter, file: IO[bytes]) -> None:
        """Writes what waits in the file, quieter if need be."""
        channels, peak = self._song.channels, np.float32(max(1.0, self._peak))
        try:
            file.seek(0)
            while data := file.read(4 * channels * _BLOCK):
                writer.write(np.frombuffer(data, np.float32).reshape(-1, channels).T / peak)
        except OSError as error:
            raise _no_room(error) from error


def sum_of(stems: Mapping[str, Samples]) -> Samples:
    """The mixture."""
    first, *others = stems.values()
    return first + sum(others, np.zeros_like(first))


def _temporary(folder: Path) -> IO[bytes]:
    """A file without a name, gone when it is closed."""
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        raise _no_room(error) from error


def _no_room(error: OSError) -> AudioError:
    return AudioError(
        f"Cannot write a temporary file beside the stems: {error.strerror or error}; make room, or "
        "write to another folder."
    )
