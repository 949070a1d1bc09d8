"""Hours of stereo through `bsm infer`: memory, length, and what Ctrl-C leaves.

    bsm export tests/robustness/long_file.yaml -o least.onnx                 # a minimal network
    python tests/robustness/long_file.py --minutes 180 --rate 96000 --engine least.onnx
    python tests/robustness/long_file.py --minutes 30 --rate 44100           # the embedded engine

Makes a song of that length plus 12345 samples (six seconds of noise, repeated, as 16-bit FLAC) and
separates it into 32-bit float WAV, which must become RF64 above 4 GB; then runs the command again
and interrupts it with a Ctrl-C. The JSON has a row for each song; one of the same name is replaced.
--work needs room for two stems, 16.6 GB for three hours at 96 kHz.

    elapsed_s, real_time      of the command; seconds of audio per second
    peak_mib                  largest memory of the process (VmHWM)
    frames, expected_frames   of both stems, by their headers
    null                      largest |vocals + instrumental - mixture| in units in the last place,
                              at ten places, the last samples and those around 4 GB among them
    interrupted               seconds from a Ctrl-C to the end, the exit code, files left
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout

from bench.common.report import ROOT, report_head, write_report

RESULT = ROOT / "bench/results/long-file.json"
_ODD = 12_345  # samples beyond whole minutes, so that no length is right by luck
_BLOCK = 1 << 16


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Hours of stereo through bsm infer.")
    add = parser.add_argument
    add("--engine", default="default", help="engine file (default: the embedded engine)")
    add("--minutes", type=float, default=180.0, help="minutes of the song (default: 180)")
    add("--rate", type=int, default=44_100, help="its sample rate in Hz (default: 44100)")
    add("--threads", default="2", help="threads of the engine (default: 2)")
    add("--work", type=Path, help="folder for temporary files (default: the system's)")
    add(
        "-o",
        "--output",
        type=Path,
        default=RESULT,
        help="the JSON to add a row to (default: bench/results/long-file.json)",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work, prefix="long-") as folder:
        row = report_head(__file__, sys.argv[1:]) | measure(options, Path(folder).absolute())
    report = json.loads(options.output.read_text()) if options.output.exists() else {"songs": {}}
    name = f"{Path(options.engine).stem}, {options.minutes:g} min, {options.rate} Hz"
    report["songs"][name] = row
    write_report(options.output, report)
    print(json.dumps(row, indent=1))
    good = row["frames"] == [row["expected_frames"]] * 2 and row["null"] <= 1
    return 0 if good and not row["interrupted"]["left"] else 1


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Separates one song to its end, then again until a Ctrl-C."""
    song, frames = folder / "song.flac", int(options.minutes * 60 * options.rate) + _ODD
    write_song(song, options.rate, frames)
    command = ["infer", str(song), "--engine", options.engine, "--threads", options.threads]
    command += ["-o", f"{folder}/out/{{stem}}.{{ext}}"]
    code, elapsed_s, peak_mib, said = run(command)
    if code:
        raise SystemExit(f"bsm infer failed: {said}")
    stems = [folder / f"out/{stem}.wav" for stem in ("vocals", "instrumental")]
    about = [soundfile.info(stem) for stem in stems]
    row = {
        "audio_s": round(frames / options.rate, 2),
        "elapsed_s": round(elapsed_s, 1),
        "real_time": round(frames / options.rate / elapsed_s, 1),
        "peak_mib": peak_mib,
        "containers": [info.format for info in about],
        "bytes": [stem.stat().st_size for stem in stems],
        "expected_frames": frames,
        "frames": [info.frames for info in about],
        "null": null_error(song, stems, frames),
    }
    for stem in stems:
        stem.unlink()
    after_s = min(60.0, 0.3 * elapsed_s)
    code, elapsed_s, _, said = run(command, interrupt_after_s=after_s)
    stopped = {"after_s": round(after_s, 1), "until_end_s": round(elapsed_s - after_s, 2)}
    left = [path.name for path in (folder / "out").rglob("*")]
    return row | {"interrupted": stopped | {"exit_code": code, "last_line": said, "left": left}}


def run(arguments: list[str], interrupt_after_s: float = np.inf) -> tuple[int, float, int, str]:
    """Runs `bsm`, maybe with a Ctrl-C; returns exit code, seconds, peak MiB and last line."""
    command = [sys.executable, "-m", "bsmamba2", *arguments]
    start, peak_kib = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as said:
        path = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=path)
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak_kib = max([peak_kib, *map(int, re.findall(r"VmHWM:\s+(\d+)", status))])
            if time.monotonic() - start >= interrupt_after_s:
                process.send_signal(signal.SIGINT)
                interrupt_after_s = np.inf
            time.sleep(0.1)
        elapsed_s = time.monotonic() - start
        said.seek(0)
        lines = said.read().strip().splitlines() or [""]
    return process.returncode, elapsed_s, peak_kib >> 10, lines[-1]


def write_song(path: Path, rate: int, frames: int) -> None:
    """Writes the same noise repeatedly, to hold only that in memory."""
    once = 0.1 * np.random.default_rng(0).standard_normal((6 * rate, 2))
    with soundfile.SoundFile(path, "w", rate, 2, "PCM_16") as file:
        while frames:
            file.write(once[:frames])
            frames -= min(frames, len(once))


def null_error(song: Path, stems: list[Path], frames: int) -> float:
    """Largest error of vocals + instrumental against the mixture, in float32's last place."""
    around_4_gb = (1 << 32) // 8 - _BLOCK // 2  # 8 bytes a frame: two channels
    places = [*np.linspace(0, frames - _BLOCK, 9).astype(int), around_4_gb]
    worst = 0.0
    for start in (place for place in places if place <= frames - _BLOCK):
        mixture, *parts = (
            soundfile.read(path, _BLOCK, start, dtype="float32")[0].astype(np.float64)
            for path in (song, *stems)
        )
        largest = np.max(np.abs([mixture, *parts]), axis=0).astype(np.float32)
        ulps = np.abs(parts[0] + parts[1] - mixture) / np.spacing(largest)
        worst = max(worst, float(ulps.max()))
    return round(worst, 3)


if __name__ == "__main__":
    sys.exit(main())
