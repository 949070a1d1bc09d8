"""Writes the output files of one song: its stems, and a picture of them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from typing import IO

import numpy as np

from bsmamba2.runtime.audio.pictures import SongPicture
from bsmamba2.runtime.audio.reader import AudioReader
from bsmamba2.runtime.audio.samples import Samples
from bsmamba2.runtime.audio.writing import AudioWriter, OutputFormat
from bsmamba2.runtime.songs.jobs import Job
from bsmamba2.runtime.songs.pipes import whole_files
from bsmamba2.system.atomic import writing

logger = logging.getLogger(__name__)

_BLOCK = 1 << 16  # samples
_WAITING = "a temporary file beside the stems (make room, or name another folder in --out)"


class StemFiles:
    """Writes the stems of a song side by side; a context manager.

    All files appear together when the block ends, after `complete`. If the block raises, none
    appears, and existing files stay as they are.

    Rescaling needs the peak of the whole song: the stems are then stored in temporary files as
    float32, and `complete` encodes them.
    """

    def __init__(self, song: AudioReader, job: Job, output: OutputFormat) -> None:
        """Opens the files.

        Args:
            song: The song, for its sample rate, channels, length and tags.
            job: The names of the files.
            output: The format of all stems.

        Raises:
            BsmError: The format does not support the sample rate, or a file cannot be written.
        """
        self._song, self._job = song, job
        self._picture = SongPicture(song.sample_rate) if job.picture else None
        self._peak = 0.0
        self._waiting: dict[str, IO[bytes]] = {}
        self._writers: dict[str, AudioWriter] = {}
        with ExitStack() as stack:
            self._partials = stack.enter_context(whole_files(job.files))
            self._files = stack.enter_context(ExitStack())
            for (stem, name), path in zip(job.outputs.items(), self._partials, strict=False):
                writer = AudioWriter(
                    path,
                    output,
                    song.sample_rate,
                    song.channels,
                    frames=song.frames,
                    tags=song.tags,
                    name=name,
                )
                self._writers[stem] = self._files.enter_context(writer)
                if output.clip == "rescale":
                    with writing(_WAITING):
                        file = self._files.enter_context(tempfile.TemporaryFile(dir=path.parent))
                    self._waiting[stem] = file
            self._all = stack.pop_all()

    def __enter__(self) -> StemFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        self._all.__exit__(*exception)  # type: ignore[arg-type]

    def write(self, stems: Mapping[str, Samples]) -> None:
        """Appends a block of every stem, (channels, n) each; all stems add up to the mixture.

        Raises:
            BsmError: The disk is full, or a WAV of unknown length exceeds 4 GB.
        """
        if self._picture:
            self._picture.add({"mixture": np.sum([*stems.values()], axis=0), **stems})
        for stem, writer in self._writers.items():
            block = stems[stem]
            if not self._waiting:
                writer.write(block)
                continue
            self._peak = max(self._peak, float(np.abs(block).max(initial=0)))
            with writing(_WAITING):
                self._waiting[stem].write(np.ascontiguousarray(block.T, np.float32).tobytes())

    def complete(self) -> None:
        """Encodes stored stems, scaled down if necessary, writes the picture, and verifies all.

        Raises:
            BsmError: Something cannot be written.
        """
        if self._peak > 1:
            logger.warning(
                "The stems of %s are %.2f dB quieter, so that none exceeds full scale.",
                self._song.name,
                20 * np.log10(self._peak),
            )
        channels, peak = self._song.channels, np.float32(max(1.0, self._peak))
        with self._files:
            for stem, file in self._waiting.items():
                with writing(_WAITING):
                    file.seek(0)
                    while data := file.read(4 * channels * _BLOCK):
                        block = np.frombuffer(data, np.float32).reshape(-1, channels).T
                        self._writers[stem].write(block / peak)
            if self._picture:
                with writing(self._job.picture):
                    self._partials[-1].write_bytes(self._picture.png())
