"""Audio files in, the files of their stems out.

decode, STFT    this song's own thread, some chunks ahead
engine          one thread for all songs
inverse STFT    two threads for all songs
encode          one thread for each song
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
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
"""Called with the song's name, the seconds that are done, and all of them if that is known."""
Watch = Callable[[str], AbstractContextManager[Progress | None]]
"""Opens the progress of a song, by its file's name, on the thread that separates it."""

_BLOCKS_TO_ENCODE = 3  # at a time, at most: one in the encoder and two that wait for it


@dataclass(frozen=True, kw_only=True)
class SeparatedSong:
    """A song whose stems are written."""

    job: Job
    duration_s: float
    """The length of the audio."""
    elapsed_s: float
    """The time of decoding, separation and encoding."""
    sample_rate: int
    channels: int
    stages_s: Mapping[str, float]
    """Stage -> seconds, as in `StageTimes`; they overlap."""

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio: below 1 is faster than listening."""
        return self.elapsed_s / self.duration_s

    @property
    def engine_share(self) -> float:
        """Part of the elapsed time in which the engine worked for this song, 0 to 1."""
        return self.stages_s["engine"] / self.elapsed_s


def separate_file(
    separator: Separator, job: Job, output: OutputFormat, progress: Progress | None = None
) -> SeparatedSong:
    """Separates a file in a stream: memory does not grow with its length.

    The stems named in the job appear together when all of them are complete. On any failure none
    appears, and what was there before stays.

    Raises:
        BsmError: The file cannot be read, separated or written; one sentence.
    """
    started = time.perf_counter()
    times = StageTimes()
    done = 0
    with AudioReader(job.source, section=job.section, name=job.name) as reader:
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
) -> Iterator[SeparatedSong | Exception]:
    """Separates files as `separate_file` does; a failure ends only its own.

    Args:
        separator: Separates all of them.
        jobs: The files.
        output: The format of all stems.
        at_once: Songs at a time, each on a thread of its own.
        watch: Shows how far a song is.

    Yields:
        What became of each file, in the order of `jobs`.
    """

    def outcome(job: Job) -> SeparatedSong | Exception:
        try:
            with watch(job.source.name) as progress:
                return separate_file(separator, job, output, progress)
        except Exception as error:
            return error

    if at_once == 1:  # on the caller's own thread, which Ctrl-C reaches
        yield from map(outcome, jobs)
        return
    songs = Lane("bsm-song", at_once)
    try:
        for task in [songs.submit(functools.partial(outcome, job)) for job in jobs]:
            yield task.result()
    except BaseException:
        songs.stop()
        separator.close()  # which ends the songs that have begun
        songs.close()
        raise


def _written(
    separator: Separator, reader: AudioReader, files: StemFiles, times: StageTimes
) -> Generator[int]:
    """Separates and writes a song; samples of each block that is written."""
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
