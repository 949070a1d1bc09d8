"""Checks of a data folder before training begins; all problems are reported together."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from bsmamba2.config.model import AudioConfig
from bsmamba2.config.training import DataConfig
from bsmamba2.data.salience import find_salient
from bsmamba2.data.tracks import MIXTURE, Track, find_tracks, seekable_frames
from bsmamba2.errors import BsmError, DataError, MissingExtraError
from bsmamba2.runtime.audio.reader import AudioReader


def check_tracks(
    root: Path,
    splits: Sequence[str],
    data: DataConfig,
    audio: AudioConfig,
    cache: Path | None = None,
    *,
    jobs: int = 1,
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """Checks that the tracks of the splits can be used; mixtures of training tracks are not read.

    The header and the length of every file are checked. Stems of the training split are also read
    completely to find their salient segments, unless these are in the cache.

    Args:
        root: Folder of the whole dataset.
        splits: Any of "train", "valid" and "test".
        data: Names of the stems, and the definition of salience.
        audio: Sample rate and channels that the files must have.
        cache: As for `find_salient`, which then reuses the segments found here.
        jobs: As for `find_salient`.
        report: As for `find_salient`.

    Raises:
        DataError: One line for each problem of all splits, with its path.
    """
    problems: list[str] = []
    for split in splits:
        try:
            tracks = find_tracks(root, split, data).tracks
        except DataError as error:
            problems += str(error).splitlines()
            continue
        stems = data.stems if split == "train" else (MIXTURE, *data.stems)
        lines = {track.name: _track_problems(track, stems, audio) for track in tracks}
        problems += [line for of_track in lines.values() for line in of_track]
        if split == "train":
            sound = [track for track in tracks if not lines[track.name]]
            try:
                find_salient(sound, data, audio, cache, jobs=jobs, report=report)
            except DataError as error:
                problems += str(error).splitlines()
    problems = list(dict.fromkeys(problems))  # a missing root is reported by every split
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise DataError("\n".join([f"{root} cannot be used ({count}):", *problems]))


def _track_problems(track: Track, stems: Sequence[str], audio: AudioConfig) -> list[str]:
    """Lists the problems that the headers of a track's files reveal."""
    names = [MIXTURE, *(stem for stem in stems if stem != MIXTURE)]
    if {name.lower() for name in names}.isdisjoint(path.stem.lower() for path in track.files):
        return [
            f"{track.folder} holds audio files, but none is called {', '.join(names[:-1])} or "
            f"{names[-1]}: rename them, or put the folder elsewhere."
        ]
    problems: list[str] = []
    lengths: dict[Path, int] = {}
    for stem in stems:
        try:
            path = track.stem(stem)
            lengths[path] = _check_file(path, audio)
        except (BsmError, OSError) as error:
            problems.append(" ".join(str(error).split()))
    usual = Counter(lengths.values()).most_common(1)
    for path, frames in lengths.items():
        if frames != usual[0][0]:
            problems.append(
                f"{path} has {frames} samples, but the song's other files have "
                f"{usual[0][0]}: export them together."
            )
    return problems


def _check_file(path: Path, audio: AudioConfig) -> int:
    """Returns the samples per channel of a file; raises BsmError or OSError."""
    if not path.is_file():
        raise DataError(
            f"{path} is missing: every song needs each of data.stems and, for validation, its "
            "mixture, as WAV or FLAC."
        )
    seekable = seekable_frames(path)
    if seekable is None:
        with contextlib.suppress(MissingExtraError):
            AudioReader(path).close()  # raises if the file is damaged
        raise DataError(
            f"{path} is in a format in which training cannot read segments: replace it by a FLAC "
            "or WAV file."
        )
    with AudioReader(path) as reader:
        rate, channels, frames = reader.sample_rate, reader.channels, reader.frames
    if frames != seekable:  # the reader finds all samples of such a file
        raise DataError(
            f"{path} holds more samples than its header states, as it was joined from several "
            "files or written into a pipe: export it again."
        )
    if rate != audio.sample_rate:
        raise DataError(
            f"{path} has a sample rate of {rate} Hz instead of {audio.sample_rate} Hz: resample it."
        )
    if channels != audio.channels:
        raise DataError(
            f"{path} has {channels} channel{'s' * (channels != 1)} instead of {audio.channels}: "
            "export it again."
        )
    if not frames:
        raise DataError(f"{path} holds no samples: export it again.")
    return frames
