"""One audio file in, the files of its stems out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.files import atomic_paths
from bsmamba2.runtime.audio import AudioReader
from bsmamba2.runtime.naming import Job
from bsmamba2.runtime.separator import Separator
from bsmamba2.runtime.writing import AudioWriter, OutputFormat

Progress = Callable[[float, float | None], None]
"""Called with the seconds of audio that are done, and all of them if that is known."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of one file."""

    source: Path
    outputs: Mapping[str, Path]
    """Stem -> file."""
    duration_s: float
    """Of the audio."""
    elapsed_s: float
    """Of decoding, separation and encoding."""
    sample_rate: int
    channels: int

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio: below 1 is faster than listening."""
        return self.elapsed_s / self.duration_s


def separate_file(
    separator: Separator, job: Job, output: OutputFormat, progress: Progress | None = None
) -> Report:
    """Separates a file in a stream: memory does not grow with its length.

    The stems named in the job appear together when all of them are complete. On any failure none
    appears, and what was there before stays.

    Raises:
        BsmError: The file cannot be read, separated or written; one sentence.
    """
    started = time.perf_counter()
    with AudioReader(job.source) as reader:
        total = reader.frames / reader.sample_rate if reader.frames else None
        done = 0
        with (
            atomic_paths(list(job.outputs.values())) as partials,
            ExitStack() as stack,
        ):
            writers = {
                stem: stack.enter_context(_writer(partial, path, output, reader))
                for (stem, path), partial in zip(job.outputs.items(), partials, strict=True)
            }
            for stems in separator.stream(reader.blocks(), reader.sample_rate, reader.channels):
                for stem, writer in writers.items():
                    writer.write(stems[stem])
                done += stems[separator.stems[0]].shape[1]
                if progress:
                    progress(done / reader.sample_rate, total)
        return Report(
            source=job.source,
            outputs=job.outputs,
            duration_s=done / reader.sample_rate,
            elapsed_s=time.perf_counter() - started,
            sample_rate=reader.sample_rate,
            channels=reader.channels,
        )


def _writer(partial: Path, path: Path, output: OutputFormat, reader: AudioReader) -> AudioWriter:
    return AudioWriter(
        partial, output, reader.sample_rate, reader.channels, frames=reader.frames, name=path
    )
