"""Runs of `bsm train` in processes of their own, that a test may kill."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bsmamba2.config import Config, load_config, override_config

CONFIG = """
base: tiny
audio: {chunk_s: 1, hop: 882}
network: {bands: [[205, 5]], d_model: 8, layers: 1, headdim: 8, d_state: 8, mask_expand: 1}
data: {items_per_epoch: 12}
loss: {stft_windows: [512, 256], stft_hop: 441, stft_min_n_fft: 512}
training: {precision: float32, batch_size: 2, accumulation: 2, processes: 1, max_steps: 6,
  workers: 0, checkpoint_minutes: 0.0, keep_best: 2, ema_decay: 0.9}
"""


def small_config(tmp_path: Path, *assignments: str) -> Config:
    """CONFIG with some values replaced."""
    path = tmp_path / "in-process.yaml"
    path.write_text(CONFIG)
    return override_config(load_config(path), assignments)


@functools.cache
def _server() -> ForkServerContext:
    """Children fork from a process that has imported everything: none waits for torch."""
    context = multiprocessing.get_context("forkserver")
    slow = [
        "bsmamba2.training.train",
        "bsmamba2.cli.train",
        "torch._dynamo",
        "tqdm.contrib.logging",
    ]
    context.set_forkserver_preload([*slow, "torch.utils.tensorboard", "small_runs"])
    return context


def start(arguments: list[str], errors: Path) -> ForkServerProcess:
    """`bsm ARGUMENTS` on one thread, in a process; its stderr goes to a file."""
    process = _server().Process(target=_command, args=(arguments, errors))
    process.start()
    return process


def finish(arguments: list[str], errors: Path) -> tuple[int | None, str]:
    """Exit code and stderr of a command that is left to end by itself."""
    process = start(arguments, errors)
    process.join()
    return process.exitcode, errors.read_text()


def _command(arguments: list[str], errors: Path) -> None:
    handle = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 2)
    sys.stderr = os.fdopen(handle, "w", buffering=1)
    torch.set_num_threads(1)
    from bsmamba2.cli import main

    main(arguments)


def records(run: Path, kind: str) -> list[dict[str, Any]]:
    """Of a kind, from a run's log."""
    lines = (run / "log.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def final_state(run: Path) -> dict[str, Tensor]:
    """All tensors of the last checkpoint that a step changes, by name."""
    saved = torch.load(run / "last.ckpt", weights_only=True)
    named = {f"{part}.{k}": v for part in ("network", "ema") for k, v in saved[part].items()}
    for index, moments in saved["optimizer"]["state"].items():
        named |= {f"optimizer.{index}.{k}": v for k, v in moments.items()}
    return named | {"rng": saved["rng"]["torch"]}


def assert_same_state(a: Path, b: Path) -> None:
    """To the last bit."""
    left, right = final_state(a), final_state(b)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
