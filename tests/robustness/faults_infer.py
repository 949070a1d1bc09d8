"""`bsm infer FOLDER` killed at any moment, and on a disk that is full at any byte."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile
from faults_process import Command, Ended, resize, small_disk, timed

FORMATS = ("wav", "flac", "ogg", "mp3")
STEMS = ("vocals", "instrumental")
_RATE = 44100
_LENGTHS = (1.3, 2.1, 0.4, 3.0)  # seconds
_CONFIG = "base: tiny\naudio: {chunk_s: 1}\n"


class Folder:
    """Songs, an engine, and what an undisturbed run makes of them."""

    def __init__(self, work: Path, seed: int) -> None:
        """Makes them in an empty folder."""
        from bsmamba2.export.to_onnx import export_onnx

        self.work, self.songs, self.said = work, work / "songs", work / "said"
        self.songs.mkdir()
        rng = np.random.default_rng(seed)
        for number, seconds in enumerate(_LENGTHS):
            samples = 0.1 * rng.standard_normal((round(seconds * _RATE), 2))
            soundfile.write(self.songs / f"song {number}.wav", samples, _RATE, subtype="PCM_16")
        (work / "quick.yaml").write_text(_CONFIG)
        self.engine = work / "quick.onnx"
        export_onnx(str(work / "quick.yaml"), self.engine)
        self._whole: dict[str, tuple[float, dict[str, Any]]] = {}

    def arguments(self, format: str, out: Path, *more: str) -> list[str]:
        """Of the command."""
        return [
            *(
                "infer",
                str(self.songs),
                "--engine",
                str(self.engine),
                "--threads",
                "1",
                "--overlap",
                "0",
            ),
            *("--format", format, "-o", str(out / "{track}" / "{stem}.{ext}"), "--json", *more),
        ]

    def whole(self, format: str) -> tuple[float, dict[str, Any]]:
        """Seconds of an undisturbed run, and the samples it leaves, by name."""
        if format not in self._whole:
            out = self.work / f"whole {format}"
            _, elapsed_s = timed(self.arguments(format, out), self.work, self.said)
            names = visible(out)
            assert len(names) == len(STEMS) * len(_LENGTHS)
            self._whole[format] = elapsed_s, {name: samples_of(out / name) for name in names}
        return self._whole[format]

    def wrong_files(self, format: str, out: Path) -> list[str]:
        """Files under their final names that are not what an undisturbed run leaves."""
        expected = self.whole(format)[1]
        wrong = []
        for name in visible(out):
            if name not in expected:
                wrong.append(f"{name} should not be there")
                continue
            try:
                found = samples_of(out / name)
            except (soundfile.SoundFileError, RuntimeError) as error:
                wrong.append(f"{name}: {error}")
                continue
            if not np.array_equal(found, expected[name]):
                wrong.append(f"{name} has {found.shape} other samples")
        return wrong


def samples_of(path: Path) -> Any:
    """All samples."""
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


def visible(folder: Path) -> list[str]:
    """Names of the files below a folder that neither are hidden nor lie in a hidden folder."""
    return [name for name in _names(folder) if not _is_hidden(name) and (folder / name).is_file()]


def hidden(folder: Path) -> list[str]:
    """Names of the other files, and of hidden folders that are empty."""
    return [name for name in _names(folder) if _is_hidden(name)]


def _names(folder: Path) -> list[str]:
    """What lies below a folder, but for folders with something in them."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    )


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def kill(folder: Folder, random: Random, number: int) -> dict[str, Any]:
    """One run that is killed, and one that completes it."""
    format = random.choice(FORMATS)
    elapsed_s, expected = folder.whole(format)
    out, moment_s = folder.work / f"killed {number}", random.uniform(0, 1.05 * elapsed_s)
    jobs = random.choice(("1", "2"))
    arguments = folder.arguments(format, out, "--jobs", jobs, "--skip-existing")
    ended = Command(arguments, folder.work, folder.said).kill_after(moment_s)
    there, left = visible(out), hidden(out)
    wrong = folder.wrong_files(format, out)
    wrong += [name for name in left if ".partial-" not in name]
    if ended.code not in (0, -9):
        wrong.append(f"exit code {ended.code}: {ended.err}")
    again = Command(arguments, folder.work, folder.said).end()
    wrong += _said_wrong(again, there) + folder.wrong_files(format, out)
    if visible(out) != sorted(expected):
        wrong.append(f"the second run left {visible(out)}")
    wrong += [f"{name} is still there" for name in hidden(out)]
    return {
        "kind": "infer",
        "format": format,
        "jobs": int(jobs),
        "moment_s": round(moment_s, 3),
        "stage": _stage(ended, there, left, len(expected)),
        "left": len(left),
        "wrong": wrong,
    }


def _stage(ended: Ended, there: list[str], left: list[str], all_of_them: int) -> str:
    if ended.code == 0:
        return "after its end"
    if left:
        return "stems being written"
    if not there:
        return "before the first stem"
    return "after the last stem" if len(there) == all_of_them else "between songs"


def _said_wrong(ended: Ended, there: list[str]) -> list[str]:
    """What is wrong with what a completing run says, after one that left some files."""
    if ended.code:
        return [f"the second run failed, {ended.code}: {ended.err}"]
    document = json.loads(ended.out)
    tracks = [name.split("/")[0] for name in there]
    done = sorted(track for track in set(tracks) if tracks.count(track) == len(STEMS))
    skipped = sorted(Path(name).stem for name in document["skipped"])
    separated = sorted(Path(file["input"]).stem for file in document["files"])
    wrong = []
    if skipped != done or document["failed"]:
        wrong.append(f"skipped {skipped} instead of {done}")
    if sorted(skipped + separated) != [f"song {n}" for n in range(len(_LENGTHS))]:
        wrong.append(f"separated {separated}, skipped {skipped}")
    return wrong


def fill(folder: Folder, format: str, size: int, *clip: str) -> dict[str, Any]:
    """One run onto a disk of `size` bytes, and one that completes it on a larger one."""
    expected = folder.whole(format)[1]
    disk = folder.work / "disk"
    disk.mkdir(exist_ok=True)
    with small_disk(disk, size):
        out = disk / "out"
        arguments = folder.arguments(format, out, "--skip-existing", *clip)
        ended = Command(arguments, folder.work, folder.said).end()
        there = visible(disk)
        wrong = folder.wrong_files(format, out) + [f"{name} is left" for name in hidden(disk)]
        wrong += _full_wrong(ended, there, complete=len(there) == len(expected))
        resize(disk, "size=100000000")
        again = Command(arguments, folder.work, folder.said).end()
        wrong += _said_wrong(again, [name.removeprefix("out/") for name in there])
        wrong += folder.wrong_files(format, out)
        if visible(out) != sorted(expected):
            wrong.append(f"the second run left {visible(out)}")
    full = f"{len(there)} of {len(expected)} stems fit"
    return {"kind": "infer disk full", "format": format, "bytes": size, "stage": full,
            "left": 0, "wrong": wrong}  # fmt: skip


def rivals(folder: Folder, format: str) -> list[str]:
    """What is wrong after two runs at once into one folder."""
    out = folder.work / "rivals"
    commands = [
        Command(folder.arguments(format, out), folder.work, folder.work / f"said {number}")
        for number in range(2)
    ]
    ended = [command.end() for command in commands]
    wrong = [f"exit code {one.code}: {one.err}" for one in ended if one.code]
    wrong += folder.wrong_files(format, out) + [f"{name} is left" for name in hidden(out)]
    if visible(out) != sorted(folder.whole(format)[1]):
        wrong.append(f"there are {visible(out)}")
    return wrong


def read_only(folder: Folder, format: str) -> list[str]:
    """What is wrong after a run onto a file system that cannot be written."""
    disk = folder.work / "disk"
    disk.mkdir(exist_ok=True)
    with small_disk(disk, 1 << 20):
        resize(disk, "ro")
        ended = Command(folder.arguments(format, disk / "out"), folder.work, folder.said).end()
        there = list(disk.iterdir())
    failed = json.loads(ended.out)["failed"]
    right = [failure for failure in failed if "Read-only file system" in failure["error"]]
    good = ended.code == 1 and len(right) == len(failed) == len(_LENGTHS) and not there
    return [] if good else [f"exit code {ended.code}, {there}, {ended.out} {ended.err}"]


def _full_wrong(ended: Ended, there: list[str], *, complete: bool) -> list[str]:
    """What is wrong with what a run says whose disk may have been full."""
    if ended.code != (0 if complete else 1):
        return [f"exit code {ended.code} with {there}: {ended.err}"]
    document = json.loads(ended.out)
    listed = [Path(path) for file in document["files"] for path in file["outputs"].values()]
    wrong = [f"{path} is listed" for path in listed if not path.exists()]
    if len(listed) != len(there) or len(document["failed"]) != len(_LENGTHS) - len(there) // 2:
        wrong.append(f"{there} are there, said is {ended.out}")
    for failure in document["failed"]:
        sentence = failure["error"]
        if "nexpected" in sentence or "No space left" not in sentence:
            wrong.append(sentence)
    if "Traceback" in ended.err:
        wrong.append(ended.err)
    return wrong
