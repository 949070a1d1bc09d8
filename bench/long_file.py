"""Hours of music through `bsm infer`: memory, length, time estimate, and what Ctrl-C leaves.

    bsm export bench/long_file.yaml -o least.onnx    # hardly any network: files are what is tested
    python bench/long_file.py --minutes 180 --rate 96000 --engine least.onnx
    python bench/long_file.py --minutes 30 --rate 44100                      # the embedded engine

Makes a song of that length (the six seconds of real music in the stempeg wheel, again and again,
and 12345 samples more, FLAC of 16 bits), and runs the command on a terminal of its own. Stems are
written as --format says; as WAV, 32-bit float, those of more than 4 GB must become RF64. Then the
command runs again and gets a Ctrl-C. The JSON has a row for each song; one of the same name is
replaced. --work needs room for two stems, 16.6 GB for three hours at 96 kHz as WAV.

    elapsed_s, real_time      of the command; seconds of audio a second
    peak_mib                  largest memory of the process (VmHWM); rss_mib: at parts of the way
    frames, expected_frames   of both stems, by their headers
    null                      largest |vocals + instrumental - mixture| in units in the last place,
                              at ten places, the last samples and those around 4 GB among them
    estimate, by_average      the bar's elapsed + remaining against the truth, at parts of the way
    interrupted               seconds from a Ctrl-C to the end, the exit code, files left
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the checkout

from bench.common.command_watch import Watched, watch
from bench.common.excerpt import find_excerpt
from bench.common.report import ROOT, report_head, write_report
from bsmamba2.runtime.audio.reader import AudioReader
from bsmamba2.runtime.audio.resampling import resample

RESULT = ROOT / "bench/results/long-file.json"
PARTS = (0.1, 0.25, 0.5, 0.75, 0.9)
_ODD = 12_345  # samples beyond whole minutes, so that no length is right by luck
_BLOCK = 1 << 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.work, prefix="long-") as folder:
        row = report_head(__file__, arguments) | measure(options, Path(folder))
    report = json.loads(options.output.read_text()) if options.output.exists() else {"songs": {}}
    report["songs"][_name(options)] = row
    write_report(options.output, report)
    print(json.dumps(row, indent=1))
    good = row["frames"] == [row["expected_frames"]] * 2 and row["null"] <= 1
    return 0 if good and not row["interrupted"]["left"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Hours of music through bsm infer.")
    parser.add_argument("--engine", default="default")
    parser.add_argument("--minutes", type=float, default=180.0)
    parser.add_argument("--rate", type=int, default=44_100)
    parser.add_argument("--format", choices=["wav", "flac"], default="wav")
    parser.add_argument("--threads", type=int, help="of the engine (default: all cores)")
    parser.add_argument("--work", type=Path, help="folder of the files (default: the system's)")
    parser.add_argument("-o", "--output", type=Path, default=RESULT, help="the JSON")
    return parser


def _name(options: argparse.Namespace) -> str:
    engine = Path(options.engine).stem
    return f"{engine}, {options.minutes:g} min, {options.rate} Hz, {options.format}"


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One song, all the way and half the way."""
    song, frames = folder / "song.flac", int(options.minutes * 60 * options.rate) + _ODD
    write_song(song, options.rate, frames)
    command = ["infer", str(song), "--engine", options.engine, "--format", options.format]
    command += ["--threads", str(options.threads)] if options.threads else []
    whole = watch([*command, "-o", str(folder / "out/{stem}.{ext}")])
    if whole.code:
        raise SystemExit(f"bsm infer failed:\n{whole.text[-2000:]}")
    stems = [folder / f"out/{stem}.{options.format}" for stem in ("vocals", "instrumental")]
    about = [soundfile.info(stem) for stem in stems]
    row = {
        "audio_s": round(frames / options.rate, 2),
        "elapsed_s": round(whole.elapsed_s, 1),
        "real_time": round(frames / options.rate / whole.elapsed_s, 1),
        "peak_mib": whole.peak_mib,
        "rss_mib": {f"{part:g}": whole.rss_at(part) for part in PARTS},
        "containers": [info.format for info in about],
        "bytes": [stem.stat().st_size for stem in stems],
        "expected_frames": frames,
        "frames": [info.frames for info in about],
        "null": null_error(song, stems, frames),
        "estimate": {f"{part:g}": _estimate_error(whole, part) for part in PARTS},
        "by_average": {f"{part:g}": _estimate_error(whole, part, average=True) for part in PARTS},
    }
    for stem in stems:
        stem.unlink()
    return row | {"interrupted": interrupted(command, folder, whole.elapsed_s)}


def interrupted(command: list[str], folder: Path, elapsed_s: float) -> dict[str, Any]:
    """A run that gets a Ctrl-C when it is well under way."""
    out = folder / "again"
    after_s = min(60.0, 0.3 * elapsed_s)
    stopped = watch([*command, "-o", str(out / "{stem}.{ext}")], interrupt_after_s=after_s)
    left = [path.name for path in out.rglob("*")] if out.exists() else []
    return {
        "after_s": round(after_s, 1),
        "done": round(stopped.points[-1].done, 3) if stopped.points else 0,
        "until_end_s": round(stopped.elapsed_s - after_s, 2),
        "exit_code": stopped.code,
        "last_line": stopped.text.strip().splitlines()[-1],
        "left": left,
    }


def write_song(path: Path, rate: int, frames: int) -> None:
    """The excerpt of real music again and again, without holding more than it."""
    with AudioReader(find_excerpt()) as excerpt:
        blocks, own_rate = excerpt.blocks(), excerpt.sample_rate
        parts = list(resample(blocks, channels=2, from_rate=own_rate, to_rate=rate))
    once = np.concatenate(parts, axis=1).T.clip(-1, 1 - 2**-15)
    with soundfile.SoundFile(path, "w", rate, 2, "PCM_16") as file:
        while frames:
            file.write(once[:frames])
            frames -= min(frames, len(once))


def null_error(song: Path, stems: Sequence[Path], frames: int) -> float:
    """Largest error of vocals + instrumental against the mixture, in float32's last place."""
    float_bytes = 8  # of a frame: two channels
    around_4_gb = [(1 << 32) // float_bytes - _BLOCK // 2]
    spread = [int(part * (frames - _BLOCK)) for part in np.linspace(0, 1, 9)]
    worst = 0.0
    for start in (place for place in spread + around_4_gb if 0 <= place <= frames - _BLOCK):
        mixture, *parts = (_read(path, start) for path in (song, *stems))
        largest = np.max(np.abs([mixture, *parts]), axis=0).astype(np.float32)
        ulps = np.abs(parts[0] + parts[1] - mixture) / np.spacing(largest)
        worst = max(worst, float(ulps.max()))
    return round(worst, 3)


def _read(path: Path, start: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    with soundfile.SoundFile(path) as file:
        file.seek(start)
        return file.read(_BLOCK, dtype="float32", always_2d=True).astype(np.float64)


def _estimate_error(run: Watched, part: float, average: bool = False) -> float | None:
    """How far the bar's promise was off when that part was done: +0.1 is 10 % too long.

    Or what the average speed up to then would have promised.
    """
    points = [point for point in run.points if point.remaining_s is not None and point.done]
    point = min(points, key=lambda one: abs(one.done - part), default=None)
    if point is None or point.remaining_s is None:
        return None
    promise_s = point.elapsed_s / point.done if average else point.elapsed_s + point.remaining_s
    return round(promise_s / run.points[-1].elapsed_s - 1, 3)


if __name__ == "__main__":
    sys.exit(main())
