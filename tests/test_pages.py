"""What the pages say is true: links lead somewhere, blocks run, commands and options exist.

Blocks of `sh` and `python` are run, page by page, on a tiny network and a second of sound. Blocks
of `console` need what a test does not have, such as a GPU, a dataset, the internet or minutes:
their lines are parsed.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import soundfile
import torch
from fuzz_corpus import CONFIG
from processes import bsm

from bsmamba2.checkpoints.weights import write_weights
from bsmamba2.cli import cli
from bsmamba2.models.load import load_network

ROOT = Path(__file__).parents[1]
FOLDERS = (".", "docs", "bsmamba2", "plugins", "plugins/cpu", "tests/cuda_on_host")
PAGES = [page for folder in FOLDERS for page in sorted((ROOT / folder).glob("*.md"))]
RUN = ("README.md", *(f"docs/{name}.md" for name in ("using", "serving", "engines")))
RUN += ("docs/precision.md", "docs/training.md")
"""The pages with blocks to run; test_python_guide.py runs one more."""
NEEDS_GPU = "docs/gpu.md"
"""Its Python is compiled only."""
ROOMS = ("", "bsmamba2/", "runtime/")
"""Where paths on the page about architecture begin."""
SMALLER = (
    ("vocals.ckpt -o", "vocals.ckpt --config steps.yaml -o"),
    ("bsm train --config small", "bsm train"),
    ("bsm train --config tiny", "bsm train"),
    ("bsm train", "bsm train --config steps.yaml --threads 1"),
    ("max_steps=500", "max_steps=1"),
)
"""What is replaced in a block so that it takes seconds."""
OTHER_PROGRAMS = (".", "apt-get", "pip", "pytest", "tensorboard", "trtexec")
"""First words of lines whose options are not ours."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def blocks(page: Path, languages: str) -> list[tuple[str, str]]:
    """Pairs of language and text, in the page's order."""
    pattern = rf"^```({languages})\n(.*?)^```"
    return re.findall(pattern, page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@functools.cache
def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page: Path):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text("utf-8")):
        if not target.startswith("https://"):
            linked = page.parent / target if target else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked.resolve()), f"{target}#{anchor}"


def test_the_rooms_and_files_of_the_architecture_exist():
    text = (ROOT / "docs/architecture.md").read_text("utf-8").split("## Planned")[0]
    paths = set(re.findall(r"(?<![\w/.])\w+(?:/\w+)*/(?:\w+(?:\.\w+)?)?", text))
    assert len(paths) > 30
    for path in paths:
        found = [ROOT / f"{room}{path}{end}" for room in ROOMS for end in ("", ".py")]
        assert any(candidate.exists() for candidate in found), path


def test_the_readme_is_short_and_leads_to_every_page():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    linked = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^):#]+\.md)", page.read_text("utf-8"))
    }
    assert {page for page in PAGES if name_of(page) != "README.md"} <= linked


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What blocks name: a song, an album, a dataset, a foreign checkpoint and our own."""
    rng = np.random.default_rng(0)
    (tmp_path / "album").mkdir()
    for song in ("song.wav", "album/first.flac", "album/second.mp3"):
        soundfile.write(tmp_path / song, rng.uniform(-0.1, 0.1, (44_100, 2)), 44_100)
    for split in ("train", "valid", "test"):
        song = tmp_path / "MUSDB18-HQ" / split / "song"
        song.mkdir(parents=True)
        for stem in ("mixture", "vocals", "drums", "bass", "other"):
            soundfile.write(song / f"{stem}.wav", rng.uniform(-0.1, 0.1, (132_300, 2)), 44_100)
    (tmp_path / "steps.yaml").write_text(CONFIG.replace("chunk_s: 1", "chunk_s: 2"))
    network, metadata = load_network(tmp_path / "steps.yaml")
    torch.save(network.state_dict(), tmp_path / "bs_mamba2_vocals.ckpt")
    write_weights(tmp_path / "model.safetensors", network.state_dict(), metadata)
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_blocks_run(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    for language, block in blocks(ROOT / page, "sh|python"):
        if language == "python":
            run([sys.executable, "-c", block], folder)
            continue
        for words, smaller in SMALLER:
            block = block.replace(words, smaller)
        for line in block.splitlines():
            if re.search("[|>]", line.split("#")[0]):
                run(["bash", "-euo", "pipefail", "-c", line], folder)
            else:
                program, *arguments = shlex.split(line, comments=True)
                assert program == "bsm"
                done = bsm(*arguments)
                assert done.code == 0, f"{line}\n{done.err}"


@each_page
def test_every_block_is_run_or_parsed(page: Path):
    for language, block in blocks(page, r"\w*"):
        if language in ("sh", "python"):
            assert name_of(page) in (*RUN, NEEDS_GPU, "docs/python.md")
            assert language == "sh" or compile(block, name_of(page), "exec")
        else:
            assert language in ("console", "text")


@each_page
def test_commands_of_console_blocks_exist(page: Path):
    for _, block in blocks(page, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            check_command(shlex.split(line, comments=True))


def check_command(words: list[str]) -> None:
    """Asserts that a line names only commands, options, targets, scripts and extras that exist."""
    while words and "=" in words[0]:
        words = words[1:]  # an environment variable
    if "--no-python" in words:
        words = words[words.index("--no-python") + 1 :]  # behind torchrun
    if not words:
        return
    program, *arguments = words
    if program == "bsm":
        parse(cli, arguments)
    elif program == "make":
        run(["make", "-n", arguments[0]], ROOT)
    elif program == "python":
        assert (ROOT / arguments[0]).is_file(), arguments[0]
        options = [word for word in arguments[1:] if word.startswith("-")]
        text = run([sys.executable, arguments[0], "--help"], ROOT) if options else ""
        assert all(option in text for option in options), arguments
    else:
        assert program in OTHER_PROGRAMS, program
    if program == "pip":
        known = importlib.metadata.metadata("bsmamba2").get_all("Provides-Extra", [])
        for extras in re.findall(r"\[([\w,-]+)\]", " ".join(arguments)):
            assert set(extras.split(",")) <= set(known), extras


def parse(command: click.Command, arguments: list[str]) -> None:
    """Makes click parse arguments down to the last subcommand, as a real call would."""
    context = click.Context(command, info_name="bsm")
    while isinstance(command, click.Group):
        name, found, arguments = command.resolve_command(context, arguments)
        assert found is not None, name
        command = found
    command.make_context(command.name, arguments)


def test_extras_in_the_text_exist():
    known = set(importlib.metadata.metadata("bsmamba2").get_all("Provides-Extra", []))
    named = {extra for page in PAGES for extra in re.findall(r"`\[([a-z-]+)\]`", page.read_text())}
    assert len(named) > 5
    assert named <= known
