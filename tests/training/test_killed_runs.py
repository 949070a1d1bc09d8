"""`bsm train` as a process: killed, interrupted, resumed; two processes as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import Ended, start
from small_runs import assert_same_state, records

STEPS = 16


def arguments(config_file: Path, songs: Path, run: Path, *settings: str) -> list[str]:
    options = [f"--set={setting}" for setting in settings]
    return [
        "train", "--config", str(config_file), "--data", str(songs), "--out", str(run), *options
    ]  # fmt: skip


def finish(arguments: list[str], tmp_path: Path) -> Ended:
    """Runs a command until it ends by itself."""
    return start(arguments, tmp_path).end()


def steps_done(run: Path) -> int:
    """Number of steps for which the log has at least the beginning of a line."""
    log = run / "log.jsonl"
    return log.read_bytes().count(b'"kind": "step"') if log.exists() else 0


def partial_checkpoints(run: Path) -> list[Path]:
    return list(run.glob(".partial-*/last.ckpt"))


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_as_one_that_was_not(config_file, songs, tmp_path):
    settings = f"training.max_steps={STEPS}", "training.workers=1"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert finish(arguments(config_file, songs, whole, *settings), tmp_path).code == 0

    command = arguments(config_file, songs, killed, *settings)
    in_a_write = 0
    for moment in (1, 3, 6, 7, 11):
        running = start(command, tmp_path)
        process = running.process
        # Before a step's line, after it, or while its checkpoint is written.
        while process.is_alive() and steps_done(killed) < moment:
            process.join(0.001)
        while process.is_alive() and moment in (3, 7, 11) and not partial_checkpoints(killed):
            pass
        os.kill(process.pid, signal.SIGKILL)
        ended = running.end()
        assert ended.code == -signal.SIGKILL, ended.err
        in_a_write += bool(partial_checkpoints(killed))
    assert in_a_write, "no kill hit a checkpoint that was being written"

    ended = finish(command, tmp_path)  # immediately: workers of killed runs do not get in the way
    assert (ended.code, partial_checkpoints(killed)) == (0, []), ended.err
    assert_same_state(whole, killed)
    logged = [
        [(r["step"], r["items"], r["loss"]) for r in records(run, "step")]
        for run in (whole, killed)
    ]
    assert logged[0] == logged[1]
    assert [r[0] for r in logged[1]] == list(range(1, STEPS + 1))
    scores = [[(r["step"], r["usdr"]) for r in records(r_, "validation")] for r_ in (whole, killed)]
    assert scores[0] == scores[1]
    assert sorted(p.name for p in (whole / "best").iterdir()) == sorted(
        p.name for p in (killed / "best").iterdir()
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    config_file, songs, tmp_path, number
):
    run = tmp_path / "run"
    settings = "training.max_steps=1000000", "training.checkpoint_minutes=60", "training.workers=1"
    running = start(arguments(config_file, songs, run, *settings), tmp_path)
    process = running.process
    while process.is_alive() and steps_done(run) < 2:
        process.join(0.001)
    os.kill(process.pid, number)
    ended = running.end()
    assert ended.code == 128 + number, ended.err
    assert "run the same command to continue" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
    assert ended.err.count("Searching 2 songs for salient segments") <= 1  # kept by other tests
    assert ended.err.count("Stopping after this step; press Ctrl-C again to stop at once") == 1
    saved = torch.load(run / "last.ckpt", weights_only=True)
    assert saved["step"] == records(run, "step")[-1]["step"] >= 2


def test_a_second_signal_ends_the_run_at_once(config_file, songs, tmp_path):
    run = tmp_path / "run"
    settings = "training.max_steps=1000000", "training.accumulation=1000000", "training.workers=1"
    running = start(arguments(config_file, songs, run, *settings), tmp_path)
    process, said = running.process, tmp_path / "said" / "stderr"
    while process.is_alive() and not (run / "log.jsonl").exists():
        process.join(0.01)
    process.join(1)
    os.kill(process.pid, signal.SIGINT)
    while process.is_alive() and "Stopping after" not in said.read_text():
        process.join(0.01)
    os.kill(process.pid, signal.SIGINT)
    ended = running.end(60)
    assert ended.code == 128 + signal.SIGINT, ended.err
    assert ended.err.splitlines()[-1] == "Interrupted."
    assert not (run / "last.ckpt").exists()


@pytest.mark.slow
def test_two_processes_of_torchrun_have_the_losses_of_one_with_the_same_global_batch(
    config_file, songs, tmp_path
):
    one, two = tmp_path / "one", tmp_path / "two"
    batch = "training.batch_size=4"
    assert finish(arguments(config_file, songs, one, batch), tmp_path).code == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    main = tmp_path / "main.py"
    main.write_text("from bsmamba2.cli import main\nmain()\n")
    done = subprocess.run(
        [*torchrun, str(main), *arguments(config_file, songs, two)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Trained 6 of 6 steps") == 1
    for kind, name in (("step", "loss"), ("step", "gradient_norm"), ("validation", "usdr")):
        curves = [[record[name] for record in records(run, kind)] for run in (one, two)]
        assert curves[1] == pytest.approx(curves[0], rel=2e-4), name
    assert [r["items"] for r in records(two, "step")] == [8 * n for n in range(1, 7)]
