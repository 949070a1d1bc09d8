"""Kills `bsm infer FOLDER` at random moments, and runs it on disks that are full at any byte."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile
from commands import Ended, start, timed
from disks import hidden, remount, small_disk, visible

FORMATS = ("wav", "flac", "ogg", "mp3")
STEMS = ("vocals", "instrumental")
_RATE = 44100
_LENGTHS = (1.3, 2.1, 0.4, 3.0)  # seconds
_CONFIG = "base: tiny\naudio: {chunk_s: 1}\n"


class Folder:
    """Songs, an engine, and the results of an undisturbed run."""

    def __init__(self, work: Path, seed: int) -> None:
        """Makes songs and engine in an empty folder."""
        from bsmamba2.export.to_onnx import export_onnx

        self.work, self.songs, self.engine = work, work / "songs", work / "quick.onnx"
        self.songs.mkdir()
        rng = np.random.default_rng(seed)
        for number, seconds in enumerate(_LENGTHS):
            samples = 0.1 * rng.standard_normal((round(seconds * _RATE), 2))
            soundfile.write(self.songs / f"song {number}.wav", samples, _RATE, subtype="PCM_16")
        (work / "quick.yaml").write_text(_CONFIG)
        export_onnx(str(work / "quick.yaml"), self.engine)
        self.whole = functools.cache(self._whole)

    def arguments(self, format: str, out: Path, *more: str) -> list[str]:
        """Arguments of the command."""
        engine = ("--engine", str(self.engine), "--threads", "1", "--overlap", "0")
        stems = ("--format", format, "-o", str(out / "{track}" / "{stem}.{ext}"), "--json")
        return ["infer", str(self.songs), *engine, *stems, *more]

    def _whole(self, format: str) -> tuple[float, dict[str, Any]]:
        """Returns the seconds of an undisturbed run, and the samples it leaves, by name."""
        out = self.work / f"whole {format}"
        elapsed_s = timed(self.arguments(format, out), self.work)
        names = visible(out)
        assert len(names) == len(STEMS) * len(_LENGTHS)
        return elapsed_s, {name: samples_of(out / name) for name in names}

    def wrong_files(self, format: str, out: Path) -> list[str]:
        """Lists files under their final names that differ from those of an undisturbed run."""
        expected = self.whole(format)[1]
        wrong = []
        for name in visible(out):
            try:
                good = name in expected and np.array_equal(samples_of(out / name), expected[name])
                wrong += [] if good else [f"{name} has other samples, or should not be there"]
            except (soundfile.SoundFileError, RuntimeError) as error:
                wrong.append(f"{name}: {error}")
        return wrong

    def wrong_end(self, format: str, out: Path) -> list[str]:
        """Lists differences between a complete folder and that of an undisturbed run."""
        wrong = self.wrong_files(format, out) + [f"{name} is left" for name in hidden(out)]
        complete = visible(out) == sorted(self.whole(format)[1])
        return wrong if complete else [*wrong, f"there are {visible(out)}"]

    def complete(self, arguments: list[str], format: str, out: Path) -> list[str]:
        """Completes the work of an interrupted run; lists what is wrong then."""
        there = visible(out)
        ended = start(arguments, self.work).end()
        if ended.code:
            return [f"the second run failed, {ended.code}: {ended.err}"]
        document = json.loads(ended.out)
        tracks = [name.split("/")[0] for name in there]
        done = sorted(track for track in set(tracks) if tracks.count(track) == len(STEMS))
        skipped = sorted(Path(name).stem for name in document["skipped"])
        separated = sorted(Path(file["input"]).stem for file in document["files"])
        wrong = self.wrong_end(format, out)
        if skipped != done or document["failed"]:
            wrong.append(f"skipped {skipped} instead of {done}")
        if sorted(skipped + separated) != [f"song {n}" for n in range(len(_LENGTHS))]:
            wrong.append(f"separated {separated}, skipped {skipped}")
        return wrong


def samples_of(path: Path) -> Any:
    """All samples of a file."""
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


def kill(folder: Folder, random: Random, number: int) -> dict[str, Any]:
    """Kills one run, and completes its work with another."""
    format = random.choice(FORMATS)
    elapsed_s, expected = folder.whole(format)
    out, moment_s = folder.work / f"killed {number}", random.uniform(0, 1.05 * elapsed_s)
    jobs = random.choice(("1", "2"))
    arguments = folder.arguments(format, out, "--jobs", jobs, "--skip-existing")
    ended = start(arguments, folder.work).kill_after(moment_s)
    there, left = visible(out), hidden(out)
    wrong = folder.wrong_files(format, out) + [name for name in left if ".partial-" not in name]
    if ended.code not in (0, -9):
        wrong.append(f"exit code {ended.code}: {ended.err}")
    wrong += folder.complete(arguments, format, out)
    if ended.code == 0:
        stage = "after its end"
    elif left:
        stage = "stems being written"
    else:
        among = {0: "before the first stem", len(expected): "after the last stem"}
        stage = among.get(len(there), "between songs")
    return {
        "kind": "infer",
        "format": format,
        "jobs": int(jobs),
        "moment_s": round(moment_s, 3),
        "stage": stage,
        "left": len(left),
        "wrong": wrong,
    }


def fill(folder: Folder, format: str, size: int) -> dict[str, Any]:
    """Runs once onto a disk of `size` bytes, and again after enlarging it."""
    most, disk = len(folder.whole(format)[1]), folder.work / "disk"
    with small_disk(disk, size):
        out = disk / "out"
        arguments = folder.arguments(format, out, "--skip-existing")
        ended = start(arguments, folder.work).end()
        there = visible(disk)
        wrong = folder.wrong_files(format, out) + [f"{name} is left" for name in hidden(disk)]
        wrong += _full_wrong(ended, there, complete=len(there) == most)
        remount(disk, "size=100000000")
        wrong += folder.complete(arguments, format, out)
    stage = f"{len(there)} of {most} stems fit"
    return {"kind": "infer disk full", "format": format, "bytes": size, "stage": stage,
            "left": 0, "wrong": wrong}  # fmt: skip


def _full_wrong(ended: Ended, there: list[str], *, complete: bool) -> list[str]:
    """Lists what is wrong with the report of a run whose disk may have been full."""
    if ended.code != (0 if complete else 1):
        return [f"exit code {ended.code} with {there}: {ended.err}"]
    document = json.loads(ended.out)
    listed = [Path(path) for file in document["files"] for path in file["outputs"].values()]
    wrong = [f"{path} is listed" for path in listed if not path.exists()]
    if len(listed) != len(there) or len(document["failed"]) != len(_LENGTHS) - len(there) // 2:
        wrong.append(f"{there} are there, reported is {ended.out}")
    for failure in document["failed"]:
        if "nexpected" in failure["error"] or "No space left" not in failure["error"]:
            wrong.append(failure["error"])
    return [*wrong, ended.err] if "Traceback" in ended.err else wrong


def rivals(folder: Folder, format: str) -> list[str]:
    """Lists what is wrong after two simultaneous runs into one folder."""
    out = folder.work / "rivals"
    arguments = folder.arguments(format, out)
    runs = [start(arguments, folder.work, folder.work / f"said {number}") for number in range(2)]
    ended = [run.end() for run in runs]
    wrong = [f"exit code {one.code}: {one.err}" for one in ended if one.code]
    return wrong + folder.wrong_end(format, out)


def read_only(folder: Folder, format: str) -> list[str]:
    """Lists what is wrong after a run onto a read-only file system."""
    disk = folder.work / "disk"
    with small_disk(disk, 1 << 20):
        remount(disk, "ro")
        ended = start(folder.arguments(format, disk / "out"), folder.work).end()
        there = list(disk.iterdir())
    failed = json.loads(ended.out)["failed"]
    right = [failure for failure in failed if "Read-only file system" in failure["error"]]
    good = ended.code == 1 and len(right) == len(failed) == len(_LENGTHS) and not there
    return [] if good else [f"exit code {ended.code}, {there}, {ended.out} {ended.err}"]
