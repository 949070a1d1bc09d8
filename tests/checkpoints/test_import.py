"""Laws of `bsm import`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_files import lightning_checkpoint, model_of, random_weights
from processes import Outcome, bsm
from safetensors.torch import save_file

from bsmamba2.checkpoints.weights import load_weights
from bsmamba2.system.files import sha256_file

STATE = random_weights(model_of("tiny"))


def run_import(*arguments: str | Path) -> Outcome:
    return bsm("import", *arguments)


def test_command_prints_the_result_and_the_licence_reminder(tmp_path: Path) -> None:
    torch.save(lightning_checkpoint(STATE), tmp_path / "a.ckpt")
    target = tmp_path / "out.safetensors"
    command = tmp_path / "a.ckpt", "-o", target, "--config", "tiny"
    code, out, err = run_import(*command)
    assert (code, out) == (0, f"{target}\n")
    assert "not declared" in err
    assert "Lightning" in err
    assert list(load_weights(target)[0]) == list(STATE)
    report = json.loads(run_import(*command, "--json")[1])
    assert report["output"] == str(target)
    assert report["tensors"] == len(STATE)
    assert report["sha256"] == sha256_file(target)
    assert report["provenance"]["licence"] == "undeclared"


@pytest.mark.parametrize("name", ["last", "best/step-3"])
@pytest.mark.parametrize("option", [(), ("--ema",)])
def test_a_checkpoint_of_a_run_gives_its_moving_average(
    written_run: Path, tmp_path: Path, name: str, option: tuple[str, ...]
) -> None:
    target = tmp_path / "out.safetensors"
    code, _, err = run_import(written_run / f"{name}.ckpt", "-o", target, *option)
    assert code == 0, err
    assert "moving average" in err
    weights, metadata = load_weights(target)
    average, ours = load_weights(written_run / "ema.safetensors")
    assert list(weights) == list(average)
    assert all(torch.equal(weights[name], average[name]) for name in average)
    assert (metadata.model, metadata.stems) == (ours.model, ours.stems)
    assert metadata.provenance.trained
    assert "step 3" in metadata.provenance.source


@pytest.mark.parametrize("change", [{"config": {}}, {"config": 3}, {"config": {"audio": []}}])
def test_a_run_of_an_unknown_configuration_is_a_sentence(
    written_run: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    content = torch.load(written_run / "last.ckpt", weights_only=True) | change
    torch.save(content, tmp_path / "a.ckpt")
    code, _, err = run_import(tmp_path / "a.ckpt")
    assert code == 1
    assert "does not read" in err


def test_command_leaves_no_file_behind_a_failure(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.ckpt")
    code, out, err = run_import(tmp_path / "a.ckpt", "-o", tmp_path / "out.safetensors")
    assert code == 1
    assert not out
    assert "missing" in err
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def test_command_refuses_another_suffix_and_its_own_input(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    code, _, err = run_import(tmp_path / "a.safetensors", "-o", tmp_path / "a.onnx")
    assert code
    assert ".safetensors" in err
    source = tmp_path / "a.safetensors"
    before = source.read_bytes()
    code, _, err = run_import(source, "-o", source, "--config", "tiny")
    assert code
    assert source.read_bytes() == before
