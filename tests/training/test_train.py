"""A run's folder: its contents, when a run is resumed or refused, and what happens on failure."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from processes import bsm, python
from small_runs import assert_same_state, records, small_config

from bsmamba2.checkpoints.weights import load_weights
from bsmamba2.cli.train import _summary
from bsmamba2.config.file import load_config
from bsmamba2.errors import BsmError, CheckpointError, DataError, TrainingError
from bsmamba2.evaluation.metrics import usdr
from bsmamba2.runtime import Separator, load_engine
from bsmamba2.system.atomic import claimed
from bsmamba2.training import step as step_module
from bsmamba2.training import train as train_module
from bsmamba2.training.identity import check_same_run
from bsmamba2.training.logs import open_log
from bsmamba2.training.train import Outcome, train


@pytest.fixture(scope="module")
def finished(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps of CONFIG: two epochs."""
    folder = tmp_path_factory.mktemp("finished")
    train(small_config(folder), songs, folder / "run")
    return folder / "run"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def go_on(run: Path, songs: Path, *assignments: str, allow: bool = False) -> Outcome:
    config = small_config(run.parent, *assignments)
    return train(config, songs, run, allow_config_change=allow)


def test_a_signal_within_a_step_ends_the_run_after_that_step(songs, tmp_path, monkeypatch):
    real = step_module.separation_loss

    def told(*arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.setattr(step_module, "separation_loss", real)
        return real(*arguments)

    monkeypatch.setattr(step_module, "separation_loss", told)
    outcome = train(small_config(tmp_path), songs, tmp_path / "run")
    assert (outcome.step, outcome.stopped_by) == (1, signal.SIGTERM)


def test_a_compilation_that_a_signal_broke_ends_the_run_before_its_first_step(
    songs, tmp_path, monkeypatch
):
    def broken(*arguments: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("the compiler was interrupted")

    said: list[str] = []
    monkeypatch.setattr(step_module.Stepper, "step", broken)
    config = small_config(tmp_path, "training.compile=true")
    outcome = train(config, songs, tmp_path / "run", report=said.append)
    assert (outcome.step, outcome.stopped_by) == (0, signal.SIGTERM)
    assert said[-3:] == [
        "train: 2 songs, 1 left out: notes (no audio files).",
        "valid: 1 song.",
        "Compiling the network: the first step may take some minutes.",
    ]
    monkeypatch.setattr(os, "kill", lambda *_: None)
    with pytest.raises(RuntimeError, match="interrupted"):
        train(config, songs, tmp_path / "run")


def test_the_log_says_how_many_songs_a_run_uses_and_what_is_left_out(finished):
    (record,) = records(finished, "started")
    assert record["songs"] == {"train": 2, "valid": 1}
    assert record["left_out"] == {"train": {"notes": "no audio files"}, "valid": {}}


def test_a_run_keeps_the_last_the_best_and_weights_for_use(finished, tmp_path):
    best = [r["step"] for r in sorted(records(finished, "validation"), key=lambda r: -r["usdr"])]
    assert sorted(best) == [3, 6]
    assert {p.name for p in (finished / "best").iterdir()} == {
        f"step-{step}.{kind}" for step in best for kind in ("ckpt", "safetensors")
    }
    saved = torch.load(finished / "last.ckpt", weights_only=True)
    assert {"network", "ema", "optimizer", "config", "revision"} <= saved.keys()
    assert (saved["step"], saved["items"]) == (6, 24)
    average, metadata = load_weights(finished / "ema.safetensors")
    for name, tensor in average.items():
        assert torch.equal(tensor, saved["ema"][f"module.{name}"])
    assert metadata.provenance.trained
    assert metadata.stems == ("vocals", "drums", "bass", "other")
    assert "training run run, step 6" in metadata.provenance.source
    assert (finished / "best.safetensors").read_bytes() == (
        finished / "best" / f"step-{best[0]}.safetensors"
    ).read_bytes()
    assert load_config(finished / "config.yaml") == small_config(tmp_path)


def test_validation_is_the_usdr_of_what_infer_writes_without_overlap(finished, songs):
    last = records(finished, "validation")[-1]
    (name,) = last["tracks"]
    folder = songs / "valid" / name
    mixture, vocals = (
        soundfile.read(folder / f"{stem}.wav", dtype="float32")[0].T
        for stem in ("mixture", "vocals")
    )
    separator = Separator(load_engine(finished / "ema.safetensors"), overlap_s=0)
    estimate = separator.separate(mixture, 44100)["vocals"]
    assert last["usdr"] == pytest.approx(usdr(vocals, estimate), abs=1e-3)
    assert last["mixture_usdr"] == pytest.approx(usdr(vocals, mixture))


def test_a_finished_run_has_nothing_left_to_do(copy, songs):
    before = (copy / "last.ckpt").read_bytes()
    outcome = go_on(copy, songs)
    assert (outcome.step, outcome.total, outcome.stopped_by) == (6, 6, 0)
    assert (copy / "last.ckpt").read_bytes() == before
    assert len(records(copy, "step")) == 6


def test_settings_without_effect_on_weights_may_change(copy, songs):
    go_on(copy, songs, "training.workers=1", "training.keep_best=1")


def test_a_changed_configuration_is_refused_with_all_differences(copy, songs):
    changes = "training.seed=7", "loss.stft_windows=[512]", "training.max_steps=9"
    with pytest.raises(TrainingError) as refused:
        go_on(copy, songs, *changes)
    for difference in (
        "loss.stft_windows: [512, 256] -> [512]",
        "training.max_steps: 6 -> 9",
        "training.seed: 42 -> 7",
        "--allow-config-change",
    ):
        assert difference in str(refused.value)
    assert yaml.safe_load((copy / "config.yaml").read_text())["training"]["seed"] == 42


def test_an_allowed_change_takes_effect_and_is_logged(copy, songs):
    settings = "training.learning_rate=1e-5", "training.weight_decay=0.5", "training.max_steps=8"
    outcome = go_on(copy, songs, *settings, allow=True)
    assert outcome.step == 8
    assert [r["learning_rate"] for r in records(copy, "step")[6:]] == [1e-5, 1e-5]
    saved = torch.load(copy / "last.ckpt", weights_only=True)
    assert saved["optimizer"]["param_groups"][0]["weight_decay"] == 0.5
    assert "training.max_steps: 6 -> 8" in records(copy, "resumed")[0]["changes"]


def test_another_network_is_refused_whatever_is_allowed(copy, songs):
    with pytest.raises(TrainingError, match=r"another network.*network\.layers: 1 -> 2"):
        go_on(copy, songs, "network.layers=2", allow=True)


def test_a_run_starts_from_the_weights_of_a_checkpoint(finished, songs, tmp_path):
    start = finished / "ema.safetensors"
    slow = small_config(tmp_path, "training.learning_rate=1e-12", "training.max_steps=1")
    train(slow, songs, tmp_path / "run", start=start)
    before, _ = load_weights(start)
    after, metadata = load_weights(tmp_path / "run" / "ema.safetensors")
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-9)
    assert metadata.provenance.source.endswith("step 1, from ema.safetensors")


def test_other_initial_weights_are_another_run(finished, songs, tmp_path):
    run = tmp_path / "run"
    config = small_config(tmp_path, "training.max_steps=1")
    start = Path(shutil.copy(finished / "ema.safetensors", tmp_path / "first.safetensors"))
    train(config, songs, run, start=start)
    train(config, songs, run, start=finished / "ema.safetensors")  # an equal file
    start.unlink()
    config = small_config(tmp_path, "training.max_steps=2")
    train(config, songs, run, allow_config_change=True)  # resuming needs no --start
    _, metadata = load_weights(run / "ema.safetensors")
    assert metadata.provenance.source.endswith("step 2, from first.safetensors")
    other = finished / "best" / "step-3.safetensors"
    with pytest.raises(TrainingError, match="start: "):
        train(config, songs, run, start=other)


def test_initial_weights_of_another_network_are_refused(songs, tmp_path, tiny_checkpoint):
    config = small_config(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"network\.layers is 2 and 1.*checkpoint's with --config"
    ):
        train(config, songs, tmp_path / "run", start=tiny_checkpoint)
    with pytest.raises(BsmError, match="gone"):
        train(config, songs, tmp_path / "b", start=tmp_path / "gone")


def test_other_songs_are_refused_by_name(copy, songs, tmp_path):
    others = Path(shutil.copytree(songs, tmp_path / "others"))
    (others / "train" / "song 1").rename(others / "train" / "song 9")
    with pytest.raises(TrainingError, match=r"'song 1': \d+ -> absent; .*'song 9': absent -> "):
        go_on(copy, others)


def test_songs_of_long_names_are_told_apart():
    names = [60 * "name" + end for end in ("a", "b")]
    one, other = (
        {"processes": 1, "config": {}, "tracks": dict.fromkeys(names, 1) | {names[0]: length}}
        for length in (1, 2)
    )
    with pytest.raises(TrainingError, match="1 -> 2"):
        check_same_run(one, other, Path("last.ckpt"), allow_change=False)


def test_a_damaged_checkpoint_is_a_sentence_and_stays(copy, songs):
    whole = (copy / "last.ckpt").read_bytes()
    (copy / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match=r"is damaged.*best/step-\d\.ckpt, or"):
        go_on(copy, songs)
    assert len((copy / "last.ckpt").read_bytes()) == len(whole) // 2
    shutil.rmtree(copy / "best")
    with pytest.raises(TrainingError, match=r"is damaged [^:]*: choose another --out"):
        go_on(copy, songs)


def test_the_summary_names_a_file_that_exists():
    outcome = Outcome(step=6, total=6, best=None, stopped_by=0, is_first=True)
    assert _summary(outcome, Path("run")).endswith("ema.safetensors")
    assert _summary(replace(outcome, best=(3, 1.0)), Path("run")).endswith("best.safetensors")


def test_a_checkpoint_in_place_of_the_folder_of_its_run_names_that_folder(copy, songs):
    for name in ("last.ckpt", "best/step-3.ckpt"):
        for options in (("--out", copy / name), ("--out", "new", "--start", copy / name)):
            said = bsm("train", "--data", songs, *options).err
            assert re.search(f"such as {copy}[.]$|name '--out {copy}'", said), said


def test_a_best_checkpoint_can_replace_the_last(copy, finished, songs):
    shutil.copy(copy / "best" / "step-3.ckpt", copy / "last.ckpt")
    go_on(copy, songs)
    assert_same_state(copy, finished)
    assert [r["step"] for r in records(copy, "step")] == list(range(1, 7))


def test_a_checkpoint_that_is_no_longer_among_the_best_is_removed_even_if_no_step_is_left(
    copy, songs
):
    kept = sorted(path.name for path in (copy / "best").iterdir())
    for suffix in (".ckpt", ".safetensors"):  # as a kill leaves them right after a save
        (copy / "best" / f"step-1{suffix}").write_bytes(b"worse")
    go_on(copy, songs)
    assert sorted(path.name for path in (copy / "best").iterdir()) == kept


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Makes every write beyond `size` bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_last_good_checkpoint_and_says_so(copy, finished, songs):
    before = (copy / "last.ckpt").read_bytes()
    room = len(before) // 2
    with files_of_at_most(room), pytest.raises(TrainingError) as failed:
        go_on(copy, songs, "training.max_steps=7", allow=True)
    assert "Cannot write" in str(failed.value)
    assert f"last good checkpoint is {copy / 'last.ckpt'}, from step 6" in str(failed.value)
    assert (copy / "last.ckpt").read_bytes() == before
    assert not list(copy.glob(".partial-*"))
    go_on(copy, songs)
    assert_same_state(copy, finished)


def test_a_validation_song_that_is_damaged_meanwhile_is_named(copy, songs, tmp_path, monkeypatch):
    others = shutil.copytree(songs, tmp_path / "others")
    victim = next((others / "valid").iterdir()) / "mixture.wav"
    load_batches = train_module.load_batches

    def harming(*arguments: object) -> object:  # after the checks
        os.truncate(victim, victim.stat().st_size // 2)
        return load_batches(*arguments)

    monkeypatch.setattr(train_module, "load_batches", harming)
    with pytest.raises(DataError, match=rf"{victim}"):
        go_on(copy, others, "training.max_steps=7", allow=True)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_sources(songs, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(TrainingError) as stopped:
        go_on(run, songs, "training.learning_rate=1e20")
    message = str(stopped.value)
    (failed,) = records(run, "failed")
    assert f"NaN or infinite at step {failed['step']}" in message
    assert failed["sources"][0] in message
    assert "song" in failed["sources"][0]
    assert f"{run / 'last.ckpt'}, from step {failed['step'] - 1}" in message
    saved = torch.load(run / "last.ckpt", weights_only=True)
    assert all(bool(tensor.isfinite().all()) for tensor in saved["network"].values())


def test_weights_that_are_not_finite_are_never_saved(songs, tmp_path):
    with pytest.raises(TrainingError, match=r"A weight is NaN.*No checkpoint has been saved yet"):
        go_on(tmp_path / "run", songs, "training.learning_rate=1e38")
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_a_second_run_in_the_same_folder_is_refused(copy):
    code = "import sys, pathlib; from bsmamba2.system.atomic import claimed\n"
    code += "with claimed(pathlib.Path(sys.argv[1]), 'lock'): pass"
    with claimed(copy, "lock"):
        second = python(code, copy)
    assert "Another run is writing" in second.stderr.splitlines()[-1]


def test_the_log_goes_on_after_the_checkpoint_whatever_was_cut_off(tmp_path):
    lines = [json.dumps({"kind": "step", "step": step}) + "\n" for step in (1, 2, 3)]
    (tmp_path / "log.jsonl").write_text("".join(lines) + '{"kind": "step", "st')
    heard = []
    with open_log(tmp_path, 2, heard.append) as log:
        log.write("step", {"step": 3, "loss": 0.5})
    assert [r.get("loss") for r in records(tmp_path, "step")] == [None, None, 0.5]
    assert heard == [{"kind": "step", "step": 3, "loss": 0.5}]


def refusal(*arguments: str | Path) -> str:
    code, _, said = bsm(*arguments)
    assert code == 1
    return said


def test_unknown_keys_and_missing_songs_are_sentences(songs, tmp_path, config_file):
    command = ("train", "--config", config_file, "--out", tmp_path / "run", "--data")
    said = refusal(*command, songs, "--set", "training.batchsize=2")
    assert "Unknown configuration key 'training.batchsize'" in said
    assert "did you mean 'training.batch_size'?" in said
    said = refusal(*command, songs, "--set", "batch_size=2")
    assert "section.key=value" in said
    assert "nowhere" in refusal(*command, tmp_path / "nowhere")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_without_a_gpu_cuda_is_refused(songs, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(BsmError, match="--device cpu"):
        train(small_config(tmp_path), songs, tmp_path / "run", device="cuda")


def test_a_checkpoint_that_does_not_name_its_start_is_a_sentence(copy, songs):
    content = torch.load(copy / "last.ckpt", weights_only=True)
    torch.save(content | {"start": {"sha256": "0"}}, copy / "last.ckpt")
    with pytest.raises(TrainingError, match=r"last\.ckpt is damaged.*best"):
        go_on(copy, songs, allow=True)


@pytest.mark.parametrize("key", ["threads", "optimizer", "config", "ema", "best", "step"])
@pytest.mark.parametrize("value", [None, torch.zeros(3), 1 << 80], ids=["absent", "other", "huge"])
def test_a_checkpoint_of_something_else_is_a_sentence(copy, songs, key, value):
    content = torch.load(copy / "last.ckpt", weights_only=True)
    content[key] = value
    if value is None:
        del content[key]
    torch.save(content, copy / "last.ckpt")
    with pytest.raises(TrainingError, match=r"last\.ckpt is damaged.*best"):
        go_on(copy, songs)


def test_a_failed_write_of_tensorboards_thread_is_one_warning(tmp_path, caplog, capsys):
    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = threading.excepthook
    with open_log(tmp_path, 0):
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert threading.excepthook is before
    assert [r.getMessage() for r in caplog.records] == [
        "TensorBoard's files are incomplete: No space left on device."
    ]
    assert "Traceback" not in capsys.readouterr().err
