"""Kills `bsm train` at random moments, and runs it on disks that are full at any byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile
import torch
from commands import start, timed
from disks import hidden, remount, small_disk, visible

_RATE = 44100
_STEMS = ("vocals", "drums", "bass", "other")
CONFIG = """
base: tiny
audio: {chunk_s: 1, hop: 882}
network: {bands: [[205, 5]], d_model: 8, layers: 1, headdim: 8, d_state: 8, mask_expand: 1}
data: {items_per_epoch: 12}
loss: {stft_windows: [512, 256], stft_hop: 441, stft_min_n_fft: 512}
training: {precision: float32, batch_size: 2, accumulation: 2, processes: 1, max_steps: 6,
  workers: 0, checkpoint_minutes: 0.0, keep_best: 2, ema_decay: 0.9}
"""
_MOMENTS = 0.7
"""Share of an undisturbed run's time: later kills would mostly hit a resumed run after its end."""


class Training:
    """Songs, a configuration, and the final state of an undisturbed run."""

    def __init__(self, work: Path, seed: int) -> None:
        """Makes songs and configuration in an empty folder, and does the undisturbed run."""
        self.work, self.songs = work, work / "songs"
        self.config = work / "tiny.yaml"
        self.config.write_text(CONFIG)
        rng = np.random.default_rng(seed)
        for number, split in enumerate(("train", "train", "valid")):
            song = self.songs / split / f"song {number}"
            song.mkdir(parents=True)
            stems = 0.05 * rng.standard_normal((len(_STEMS), 2 * _RATE, 2)).astype(np.float32)
            for name, samples in zip(_STEMS, stems, strict=True):
                soundfile.write(song / f"{name}.wav", samples, _RATE, subtype="FLOAT")
            soundfile.write(song / "mixture.wav", stems.sum(0), _RATE, subtype="FLOAT")
        self.whole = work / "whole"
        self.elapsed_s = timed(self.arguments(self.whole), work)
        self._state = final_state(self.whole)
        self.bytes = sum(path.stat().st_size for path in self.whole.rglob("*") if path.is_file())

    def arguments(self, run: Path) -> list[str]:
        """Arguments of the command."""
        return [
            *("train", "--config", str(self.config), "--data", str(self.songs)),
            *("--out", str(run), "--cache", str(run.parent / f"{run.name} cache"), "--quiet"),
            "--set=training.max_steps=9",
        ]

    def wrong_end(self, run: Path) -> list[str]:
        """Lists differences between a finished run and the undisturbed one."""
        state = final_state(run)
        wrong = [
            f"{name} differs"
            for name in sorted(self._state.keys() | state.keys())
            if name not in state.keys() & self._state.keys()
            or not torch.equal(state[name], self._state[name])
        ]
        names = [sorted(p.name for p in (r / "best").iterdir()) for r in (run, self.whole)]
        if names[0] != names[1]:
            wrong.append(f"best/ has {names[0]}")
        if _steps(run) != _steps(self.whole):
            wrong.append("log.jsonl has other steps")
        return wrong + [f"{name} is left" for name in hidden(run)]

    def complete(self, run: Path) -> list[str]:
        """Resumes a run until its end; lists what is wrong then."""
        ended = start(self.arguments(run), self.work).end()
        return [f"exit code {ended.code}: {ended.err}"] if ended.code else self.wrong_end(run)


def kills(training: Training, random: Random, count: int) -> list[dict[str, Any]]:
    """Kills runs until `count` kills have hit one at work; then each run is resumed to its end."""
    results: list[dict[str, Any]] = []
    run = training.work / "killed"
    while len(results) < count:
        while len(results) < count:
            moment_s = random.uniform(0, _MOMENTS * training.elapsed_s)
            ended = start(training.arguments(run), training.work).kill_after(moment_s)
            if ended.code == 0:
                break
            wrong = wrong_files(run)
            if ended.code != -9:
                wrong.append(f"exit code {ended.code}: {ended.err}")
            results.append(
                {
                    "kind": "train",
                    "moment_s": round(moment_s, 3),
                    "stage": _stage(run),
                    "left": len(hidden(run)),
                    "wrong": wrong,
                }
            )
        wrong = training.complete(run)
        if results:  # a first run may have ended before its kill
            results[-1]["wrong"] += wrong
        shutil.rmtree(run)
    return results


def fill(training: Training, size: int) -> dict[str, Any]:
    """Runs once onto a disk of `size` bytes, and resumes after enlarging it."""
    disk = training.work / "disk"
    with small_disk(disk, size):
        run = disk / "run"
        ended = start(training.arguments(run), training.work).end()
        wrong = wrong_files(run) + [f"{name} is left" for name in hidden(disk)]
        last = ended.err.strip().rpartition("\n")[2]
        said = last.startswith("Error: ") and "No space left" in last
        strange = "nexpected" in ended.err or "Traceback" in ended.err
        if ended.code and (ended.code != 1 or not said or strange):
            wrong.append(f"exit code {ended.code}: {ended.err}")
        stage = "complete" if ended.code == 0 else _stage(run)
        remount(disk, "size=100000000")
        wrong += training.complete(run)
    return {"kind": "train disk full", "bytes": size, "stage": stage, "left": 0, "wrong": wrong}


def wrong_files(run: Path) -> list[str]:
    """Lists files under their final names that are not complete."""
    from safetensors.torch import load_file

    wrong = [f"{name} is hidden" for name in hidden(run) if ".partial-" not in name]
    for path in (run / name for name in visible(run)):
        try:
            if path.suffix == ".ckpt":
                torch.load(path, weights_only=True)
            elif path.suffix == ".safetensors":
                load_file(path)
            elif path.suffix == ".json":
                json.loads(path.read_text())
        except Exception as error:  # of any kind: the file is damaged
            wrong.append(f"{path.relative_to(run)}: {error}")
    return wrong


def _stage(run: Path) -> str:
    if any(name.endswith((".ckpt", ".safetensors")) for name in hidden(run)):
        return "a checkpoint being written"
    if hidden(run):
        return "another file being written"
    if not (run / "last.ckpt").exists():
        return "before the first checkpoint"
    return "after a checkpoint"


def _steps(run: Path) -> list[tuple[int, float]]:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(r["step"], r["loss"]) for r in records if r["kind"] == "step"]


def final_state(run: Path) -> dict[str, torch.Tensor]:
    """Returns all tensors of the last checkpoint that a step changes, by name."""
    saved = torch.load(run / "last.ckpt", weights_only=True)
    named = {f"{part}.{k}": v for part in ("network", "ema") for k, v in saved[part].items()}
    for index, moments in saved["optimizer"]["state"].items():
        named |= {f"optimizer.{index}.{k}": v for k, v in moments.items()}
    return named
