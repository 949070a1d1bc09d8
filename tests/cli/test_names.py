"""Wrong names are refused before PyTorch is imported, so at once and also without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import MAIN, WITHOUT_TORCH, bsm, python


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("import gone.ckpt", "No such file: gone.ckpt."),
        ("import here.ckpt --config gone", "No configuration gone: "),
        ("export bsm", "bsm is not a model: "),
        ("export gone.safetensors", "No such file: gone.safetensors."),
        ("export gone.yaml", "No configuration gone.yaml: "),
        ("train --data gone --out run", "No data folder gone: "),
        ("train --data . --out run --config gone", "No configuration gone: "),
        ("train --data . --out run --start gone.safetensors", "No such file: gone.safetensors."),
        ("train --data . --out run", "Training needs the 'train' extra: "),
    ],
)
def test_a_wrong_name_is_refused_without_torch(tmp_path: Path, command: str, sentence: str) -> None:
    (tmp_path / "here.ckpt").touch()
    done = python(WITHOUT_TORCH + MAIN, *command.split(), folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {sentence}")


def test_one_song_is_a_song(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bsmamba2.data.practice import generate

    for made, words in ((1, "Made 1 song in"), (3, "Made 3 songs in")):
        monkeypatch.setattr(generate, "generate_songs", lambda *_, made=made, **__: made)
        assert words in bsm("practice", tmp_path).err
