"""Laws of names of models: whatever a user names, the error names a file or command that works."""

from __future__ import annotations

import re
import shlex
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from processes import bsm
from safetensors.torch import save_file

from bsmamba2.checkpoints.weights import load_weights
from bsmamba2.errors import BsmError, quoted
from bsmamba2.formats.model_files import model_file

COMMANDS = (
    "info {}",
    "export {} -o out.onnx",
    "infer song.wav --dry-run --engine {}",
    "parity {0} {0}",
    "eval {} --data songs",
    "eval default --against {} --data songs",
    "train --config tiny --data songs --out new --start {}",
)
"""Every command that takes a model."""


@pytest.fixture
def folder(written_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run in `run` and a checkpoint alone."""
    shutil.copytree(written_run, tmp_path / "run")
    (tmp_path / "alone").mkdir()
    shutil.copy(written_run / "last.ckpt", tmp_path / "alone")
    (tmp_path / "songs" / "valid").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sentence(command: str, name: str) -> str:
    done = bsm(*shlex.split(command.format(quoted(name))))
    assert done.code == 1
    return done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("run/last.ckpt", ["run/ema.safetensors", "run/best.safetensors"]),
        ("run/best/step-3.ckpt", ["run/best/step-3.safetensors"]),
        ("run", ["run/best.safetensors"]),
        ("run/best", ["run/best/step-3.safetensors"]),
    ],
)
def test_every_command_names_the_file_that_works(folder: Path, name: str, named: list[str]):
    for command in COMMANDS:
        said = sentence(command, name)
        assert re.findall(r"[\w/-]+\.safetensors", said) == named, said
    for other in named:
        assert model_file(other) == Path(other)
        load_weights(other)


def test_a_checkpoint_alone_is_imported_by_the_command_that_every_command_names(folder: Path):
    said = {sentence(command, "alone/last.ckpt").partition(" To ")[0] for command in COMMANDS}
    assert len(said) == 1
    (command,) = re.findall("'bsm (.*)' first", said.pop())
    assert bsm(*shlex.split(command)).code == 0
    assert bsm("info", "alone/last.safetensors").code == 0
    assert "name alone/last.safetensors" in sentence("info {}", "alone/last.ckpt")


def test_the_command_can_be_pasted_whatever_the_name(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("my model", "-start", "$HOME", 'a"b', "it's"):
        torch.save({}, f"{name}.pth")
        with pytest.raises(BsmError) as error:
            model_file(f"{name}.pth")
        words = shlex.split(re.findall("run '(.*)' first", str(error.value))[0])
        assert words[:2] == ["bsm", "import"]
        assert Path(words[2]) == Path(f"{name}.pth")
        assert Path(words[4]) == Path(f"{name}.safetensors")


def test_a_file_beside_that_is_not_ours_is_neither_named_nor_replaced(tmp_path: Path):
    torch.save({}, tmp_path / "a.ckpt")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(BsmError, match=r"-o \S*/a\.imported\.safetensors'"):
        model_file(tmp_path / "a.ckpt")


def test_only_what_import_may_read_is_sent_there(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        archive.writestr("text", "hello")
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.writestr("b/data.pkl", b"")
        archive.writestr("b/constants.pkl", b"")  # as in TorchScript
    (tmp_path / "c.bin").write_bytes(b"x")
    for name in ("a.ckpt", "b.pt", "c.bin"):
        for command in ("info", "export"):
            assert "bsm import" not in bsm(command, tmp_path / name).err
