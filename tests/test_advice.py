"""Advice can be followed: what messages and help name exists, and what they advise works."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.metadata
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
import soundfile
import torch
from foreign_files import lightning_checkpoint, model_of, random_weights
from processes import bsm
from safetensors.torch import save_file
from test_errors import ROOT, SOURCES
from test_pages import parse

from bsmamba2.cli import COMMANDS, cli, main
from bsmamba2.export.plan.options import PlanOptions

# --- every command and option that a text in the sources names ---

_COMMAND = re.compile(r"(?<![\w./-])bsm ((?:--)?[a-z{][^'`\n#|>)]*)")
"""A command: from "bsm " to the quote, comment or end of line behind it."""
_OPTION = re.compile(r"(?<![\w-])(?<!var\()--[a-z][\w-]*(?![\w-]|\s*:)")
"""A long option; no variable of a style sheet."""
_FOREIGN = {
    *("--upgrade", "--force-reinstall", "--no-deps", "--list-gpu-arch", "--dynamicPlugins"),
    *("--nproc-per-node", "--no-python", "--version"),
}
"""Options of pip, nvcc, trtexec and torchrun."""
_SHOWN_BY = {
    "bsmamba2/checkpoints": ("import",),
    "bsmamba2/data": ("train",),
    "bsmamba2/data/practice": ("practice",),
    "bsmamba2/evaluation": ("eval",),
    "bsmamba2/training": ("train",),
    "bsmamba2/cli/engine_options.py": ("infer", "eval"),
    "bsmamba2/cli/import_.py": ("import",),
    "bsmamba2/cli/infer_report.py": ("infer",),
    "export": ("export",),
    "plugins": ("plugin build", "export"),
    "runtime/audio": ("infer",),
    "runtime/engines": ("infer", "eval", "parity"),
    "runtime/engines/tensorrt/checks.py": ("export",),  # of a plan's own command
    "runtime/songs": ("infer",),
    **{f"bsmamba2/cli/{name}.py": (name,) for name in COMMANDS},
    "bsmamba2/cli/plugin.py": ("plugin build",),
}
"""Folder or file -> the commands that show its texts; the longest name that fits counts."""


@functools.cache
def options(command: str) -> frozenset[str]:
    """The options of a command, such as "plugin build", or of `bsm` itself for ""."""
    found: click.Command | None = cli
    for word in command.split():
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(found), word)
        assert found is not None, f"no command {command}"
    parameters = found.get_params(click.Context(found))
    return frozenset(name for parameter in parameters for name in parameter.opts) | {"-h"}


@functools.cache
def texts(path: Path) -> list[tuple[int, str]]:
    """Line and text of every literal in a file; {} replaces formatted values."""
    return list(_texts(path))


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    tree = ast.parse(path.read_text("utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
             for part in node.values}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "{}"
                    for part in node.values
                ),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from [(node.lineno, node.value)] if id(node) not in parts else []


def shown_by(path: Path) -> tuple[str, ...]:
    name = path.relative_to(ROOT).as_posix()
    fitting = [known for known in _SHOWN_BY if f"{name}/".startswith(f"{known}/")]
    return _SHOWN_BY[max(fitting, key=len)] if fitting else ()


def wrong_commands(text: str) -> list[str]:
    """The commands in a text that do not exist, or not with these options."""
    wrong = []
    for named in _COMMAND.findall(text):
        words = named.replace("...", "").split()
        groups = 2 if words[0] == "plugin" and len(words) > 1 else 1
        command = " ".join(words[:groups])
        if command.startswith(("{", "COMMAND", "--")):
            command = ""
        given = {word.partition("=")[0] for word in words if re.match("--?[a-z]", word)}
        with contextlib.suppress(AssertionError):
            if given <= options(command):
                continue
        wrong.append(named)
    return wrong


def test_every_command_in_a_text_exists_with_its_options() -> None:
    found = [(path, line, text) for path in SOURCES for line, text in texts(path)]
    assert sum(bool(_COMMAND.search(text)) for _, _, text in found) > 60
    wrong = [(path.name, line, wrong_commands(text)) for path, line, text in found]
    assert not [names for names in wrong if names[2]]
    assert wrong_commands("run 'bsm imports a' or `bsm info --trt`") == ["imports a", "info --trt"]


def test_every_option_in_a_text_is_one_of_the_commands_that_show_it() -> None:
    everywhere = frozenset().union(*(options(name) for name in (*COMMANDS, "plugin build", "")))
    wrong, count = [], 0
    for path in SOURCES:
        known = [options(command) for command in shown_by(path)]
        allowed = (frozenset.intersection(*known) if known else everywhere) | _FOREIGN
        for line, text in texts(path):
            if not text.startswith("-"):  # an option for click or another program, or a separator
                named = set(_OPTION.findall(_COMMAND.sub("", text)))
                count += len(named)
                wrong += [f"{path.name}:{line}: {text}"] if named - allowed else []
    assert not wrong
    assert count > 60


def test_every_extra_in_a_text_exists() -> None:
    known = set(importlib.metadata.metadata("bsmamba2").get_all("Provides-Extra", []))
    named = {
        extra
        for path in SOURCES
        for _, text in texts(path)
        for extra in re.findall(r"bsmamba2\[([\w-]+)\]|the '([\w-]+)' extra", text)
    }
    assert {name for pair in named for name in pair if name} <= known
    assert len(named) > 3


@pytest.mark.parametrize("name", [*COMMANDS, "plugin build"])
def test_the_examples_of_every_help_can_be_called(name: str) -> None:
    command: click.Command | None = cli
    for word in name.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command is not None
    for line in re.findall(
        r"^ +(?:torchrun .* )?bsm ([^#|>\n]*)", command.help or "", re.MULTILINE
    ):
        parse(cli, shlex.split(line))


def test_the_command_that_a_plan_names_can_be_called() -> None:
    options = PlanOptions(batch=2, frames="1:801:1601", arch="90")
    for source in ("model.onnx", "my 'own' model.onnx", "default"):
        words = shlex.split(options.command(source, "a b.plan", "tensorrt-rtx"))
        parse(cli, words[1:])
        assert words[2] == source


def test_the_advice_to_debug_shows_the_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: str) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr("bsmamba2.cli.info_record.inspect_file", broken)
    with pytest.raises(SystemExit):
        main(["info", "tiny"])
    (advised,) = re.findall(r"Run 'bsm (.*) \.\.\.'", capsys.readouterr().err)
    with pytest.raises(RuntimeError, match="odd"):
        main([advised, "info", "tiny"])


# --- every piece of advice that a command can be brought to give here, followed ---

Words = list[str]
Follow = Callable[[Words, str], Words]
"""Takes the words of a command and what its advice names; returns the words that follow it."""


def run(_: Words, named: str) -> Words:
    return shlex.split(named)


def add(value: str = "") -> Follow:
    return lambda words, named: [*words, *shlex.split(named), *shlex.split(value)]


def leave_out(words: Words, named: str) -> Words:
    at = words.index(named)
    takes_value = len(words) > at + 1 and not words[at + 1].startswith("-")
    return words[:at] + words[at + 1 + takes_value :]


def instead_of(old: str) -> Follow:
    return lambda words, named: [word.replace(old, named) for word in words]


@dataclass(frozen=True)
class Advice:
    """A command that fails or warns, and how to follow what it says."""

    command: str
    steps: tuple[tuple[str, Follow], ...]
    """Patterns of the advice, the group naming what to do, and how to do it; one after another."""
    until: str = ""
    """Pattern of the error that the followed command ends with; by default it succeeds."""


def advice(command: str, pattern: str, follow: Follow, *more: object, until: str = "") -> Advice:
    steps = ((pattern, follow), *zip(more[::2], more[1::2], strict=True))
    return Advice(command, steps, until)  # type: ignore[arg-type]


GONE = "No such file: gone|No data folder gone"
ADVICE = [
    advice("song.wav", "'bsm (infer song.wav)'", run),
    advice("'my song.wav'", "'bsm (infer .*)'", run),
    advice("infer song.wav --engine foreign.ckpt", "run 'bsm (.*)' first", run,
           "with (--config)", add("tiny")),
    advice("info foreign.safetensors", "run 'bsm (.*)' first", run, "with (--config)", add("tiny")),
    advice("export foreign.pth", "run 'bsm (.*)' first", run, "with (--config)", add("tiny")),
    advice("info last.ckpt", "run 'bsm (.*)' first", run),
    advice("info last.safetensors", "run 'bsm (.*)' first", run),
    advice("info run/last.ckpt", r"name (\S+),", instead_of("run/last.ckpt")),
    advice("info run/last.ckpt", r"or (\S+),", instead_of("run/last.ckpt")),
    advice("info run/best/step-3.ckpt", r"name (\S+),", instead_of("run/best/step-3.ckpt")),
    advice("info run", r"such as (\S+)\.$", instead_of("run")),
    advice("import run", r"such as (\S+)\.$", instead_of("run")),
    advice("import run/ema.safetensors --ema", "leave (--ema) out", leave_out),
    advice("import foreign.ckpt --config tiny --ema", "leave (--ema) out", leave_out),
    advice("import foreign.ckpt --config tiny -o a.onnx", r"end in (\.safetensors)",
           instead_of(".onnx")),
    advice("import run/ema.safetensors -o run/ema.safetensors", "with (-o)", add("b.safetensors")),
    advice("infer song.wav --precision float16", "leave (--precision) out", leave_out),
    advice("infer song.wav --engine run/ema.safetensors --overlap 0 --device cpu "
           "--precision float16", "use (--precision float32)", add()),
    advice("infer folder --dry-run", "add (--recursive)", add()),
    advice("infer song.wav -o out/{track}/{stem} --dry-run", "write (-o .*)[.]$", add()),
    advice("infer song.wav -o {track}.wav --dry-run", "as in '(.*)'", instead_of("{track}.wav")),
    advice("infer song.wav --dry-run -o {stem}.mp3 --format wav", "fit (--format) wav: leave",
           leave_out),
    advice("infer song.wav -o {track}.wav --stems vocals --dry-run", "another (--out)",
           add("{stem}.wav")),
    advice("infer song.wav song.flac --dry-run", "with (-o .*)[.]$", add()),
    advice("infer song.wav 'my song.wav' -o {stem}.wav --dry-run", "with (-o .*)[.]$", add()),
    advice("infer surround.wav", "infer (--downmix)", add()),
    advice("infer fast.wav -o {stem}.mp3", r"write (\.wav)", instead_of(".mp3")),
    advice("infer loud.wav -o {stem}.flac", "'(--clip rescale)'", add()),
    advice("infer loud.wav -o {stem}.flac", r"(\.wav) files with", instead_of(".flac")),
    advice("eval default --data songs --out song.wav", "with (--out)", add("new")),
    advice("eval default --data gone --by-length 0", r"such as ([\d,]+)\.",
           lambda words, named: [*words[:-1], named], until=GONE),
    advice("train --config tiny --data songs --out song.wav", "such as (.*)[.]$",
           instead_of("song.wav"), until="songs/train is missing"),
    advice("train --config tiny --data songs --out new --start run/last.ckpt",
           "leave (--start) out", leave_out, until="songs/train is missing"),
    advice("export gone.safetensors --audio a.wav", "add (--fp16)", add(), until=GONE),
    advice("export gone.safetensors --audio a.wav", "or (--int8)", add(), until=GONE),
    advice("export gone.safetensors --fp16 --int8", "(--int8) exclude", leave_out, until=GONE),
    advice("export gone.safetensors --trt --int8", "float32 or (--fp16)", instead_of("--int8"),
           until=GONE),
    advice("export gone.safetensors --batch 2", "add (--trt)", add(), until=GONE),
    advice("export gone.safetensors --trt --plugin a.so --arch 90", "leave (--arch) out",
           leave_out, until=GONE),
    advice("export gone.onnx", "add (--trt)", add(), until=GONE),
]  # fmt: skip
"""All of it that this machine can be brought to give at little cost."""


@pytest.fixture(scope="module")
def folder(written_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands name: songs, a run, and other checkpoints of the tiny network."""
    made = tmp_path_factory.mktemp("advice")
    tone = 0.1 * np.sin(np.arange(9600) / 20)[:, None].repeat(2, axis=1)
    (made / "folder" / "inner").mkdir(parents=True)
    (made / "songs/test/song").mkdir(parents=True)
    stems = [f"songs/test/song/{stem}" for stem in ("mixture", "vocals", "drums", "bass", "other")]
    soundfile.write(made / "song.flac", tone, 48_000)
    soundfile.write(made / "surround.wav", tone.repeat(3, axis=1), 48_000)
    for name in ("song", "my song", "folder/inner/song", *stems):
        soundfile.write(made / f"{name}.wav", tone, 48_000)
    soundfile.write(made / "loud.wav", 30 * tone, 48_000, subtype="FLOAT")
    soundfile.write(made / "fast.wav", tone, 96_000)
    shutil.copytree(written_run, made / "run")
    shutil.copy(written_run / "last.ckpt", made)
    shutil.copy(written_run / "last.ckpt", made / "last.safetensors")
    state = random_weights(model_of("tiny"))
    save_file(state, made / "foreign.safetensors")
    torch.save(lightning_checkpoint(state), made / "foreign.ckpt")
    torch.save(state, made / "foreign.pth")
    return made


@pytest.mark.parametrize("case", ADVICE, ids=lambda case: case.command)
def test_advice_that_is_followed_works(
    case: Advice,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "work"))
    words = shlex.split(case.command)
    for pattern, follow in case.steps:
        caplog.clear()
        done = bsm(*words)
        said = f"{done.err}\n{caplog.text}"
        named = re.search(pattern, said, re.MULTILINE)
        assert named, said
        words = follow(words, named[1])
    caplog.clear()
    done = bsm(*words)
    assert not re.search(case.steps[-1][0], f"{done.err}\n{caplog.text}", re.MULTILINE)
    assert bool(done.code) == bool(case.until), f"{words}: {done.err}"
    assert re.search(case.until, done.err), f"{words}: {done.err}"
