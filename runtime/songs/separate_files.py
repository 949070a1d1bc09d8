"""Separates audio files into the files of their stems, in stages that run side by side.

decode, STFT    one thread per song, a few chunks ahead
engine          one thread for all songs
inverse STFT    two threads for all songs
encode          one thread per song
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass

from bsmamba2.runtime.audio.reader import AudioReader
from bsmamba2.runtime.audio.samples import Samples
from bsmamba2.runtime.audio.writing import OutputFormat
from bsmamba2.runtime.engines.stage_times import StageTimes
from bsmamba2.runtime.separation.separator import Separator
from bsmamba2.runtime.songs.jobs import Job
from bsmamba2.runtime.songs.stem_files import StemFiles
from bsmamba2.system.lanes import Lane, in_order

Progress = Callable[[str, float, float | None], None]
"""Called with the song's name, the seconds done, and the total seconds or None if unknown."""
Watch = Callable[[str], AbstractContextManager[Progress | None]]
"""Opens the progress display of a song, given its file name, on the thread that separates it."""

_BLOCKS_TO_ENCODE = 3  # at most: one in the encoder and two waiting for it


@dataclass(frozen=True, kw_only=True)
class SeparatedSong:
    """A song whose stems have been written."""

    job: Job
    duration_s: float
    """Length of the audio."""
    elapsed_s: float
    """Time for decoding, separation and encoding."""
    sample_rate: int
    channels: int
    stages_s: Mapping[str, float]
    """Stage -> seconds, as in `StageTimes`; the stages overlap."""

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio: below 1 is faster than real time."""
        return self.elapsed_s / self.duration_s

    @property
    def engine_share(self) -> float:
        """Fraction of the elapsed time in which the engine worked for this song, 0 to 1."""
        return self.stages_s["engine"] / self.elapsed_s


def separate_file(
    separator: Separator, job: Job, output: OutputFormat, progress: Progress | None = None
) -> SeparatedSong:
    """Separates a file as a stream, in constant memory.

    The job's output files appear together when all of them are complete. On any failure none
    appears, and existing files stay as they are.

    Raises:
        BsmError: The file cannot be read, separated or written.
    """
    started = time.perf_counter()
    times = StageTimes()
    done = 0
    with job.open() as reader:
        rate = reader.sample_rate
        total = reader.frames / rate if reader.frames else None
        with StemFiles(reader, job, output) as files:
            with closing(_written(separator, reader, files, times)) as written:
                for count in written:
                    done += count
                    if progress:
                        progress(job.source.name, done / rate, total)
            with times.measure("encode"):
                files.complete()
        return SeparatedSong(
            job=job,
            duration_s=done / rate,
            elapsed_s=time.perf_counter() - started,
            sample_rate=rate,
            channels=reader.channels,
            stages_s=times.seconds,
        )


def separate_files(
    separator: Separator,
    jobs: Sequence[Job],
    output: OutputFormat,
    *,
    at_once: int = 1,
    watch: Watch = lambda title: nullcontext(),
) -> Generator[SeparatedSong | Exception]:
    """Separates files as `separate_file` does; a failure ends only the song that it occurs in.

    Args:
        separator: Separates all songs.
        jobs: The songs.
        output: The format of all stems.
        at_once: Songs to separate at the same time, each on its own thread.
        watch: Shows the progress of a song.

    Yields:
        The result or the exception of each song, in the order of `jobs`.
    """

    def outcome(job: Job) -> SeparatedSong | Exception:
        try:
            with watch(job.source.name) as progress:
                return separate_file(separator, job, output, progress)
        except Exception as error:
            return error

    if at_once == 1:  # on the caller's thread, which Ctrl-C interrupts
        yield from map(outcome, jobs)
        return
    songs = Lane("bsm-song", at_once)
    try:
        for task in [songs.submit(functools.partial(outcome, job)) for job in jobs]:
            yield task.result()
    except BaseException:
        songs.stop()
        separator.close()  # cancels the songs that have begun
        songs.close()
        raise


def _written(
    separator: Separator, reader: AudioReader, files: StemFiles, times: StageTimes
) -> Generator[int]:
    """Separates and writes a song; yields the number of samples of each block written."""
    encoder = Lane("bsm-encode")

    def write(stems: Mapping[str, Samples]) -> int:
        with times.measure("encode"):
            files.write(stems)
        return stems[separator.stems[0]].shape[1]

    blocks = times.measure_each("decode", reader.blocks())
    with closing(separator.stream(blocks, reader.sample_rate, reader.channels, times)) as separated:
        begun = (encoder.submit(functools.partial(write, stems)) for stems in separated)
        with closing(in_order(begun, _BLOCKS_TO_ENCODE)) as written:
            yield from written
