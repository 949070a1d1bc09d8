"""What the README shows works: its blocks are run, its links and extras exist."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from bsmamba2.models.load import load_network

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the blocks name: a song, an album, a checkpoint (of the tiny network)."""
    folder = tmp_path_factory.mktemp("readme")
    tone = 0.1 * np.sin(np.arange(44_100) / 20)[:, None].repeat(2, axis=1)
    (folder / "album").mkdir()
    for name in ("song.wav", "album/first.flac", "album/second.mp3"):
        soundfile.write(folder / name, tone, 44_100)
    network, _ = load_network("tiny")
    torch.save(network.state_dict(), folder / "bs_mamba2_vocals.ckpt")
    return folder


def run(command: list[str], folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("sh"))
def test_shell_blocks_run(block: str, folder: Path) -> None:
    tiny = block.replace("vocals.ckpt -o", "vocals.ckpt --config tiny -o")
    run(["bash", "-euo", "pipefail", "-c", tiny], folder)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks_run(block: str, folder: Path) -> None:
    run([sys.executable, "-c", block], folder)


def test_console_blocks_name_make_targets_and_extras_that_exist() -> None:
    text = "\n".join(blocks("console"))
    for target in re.findall(r"^make (\w+)", text, re.MULTILINE):
        run(["make", "-n", target], ROOT)
    extras = importlib.metadata.metadata("bsmamba2").get_all("Provides-Extra", [])
    named = set(re.findall(r"\[([\w-]+)\]'", text)) | set(re.findall(r"`\[([\w-]+)\]`", README))
    assert named <= set(extras)


def test_anchors_are_headings() -> None:
    headings = {line.strip("# ").lower().replace(" ", "-") for line in README.splitlines()}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings
