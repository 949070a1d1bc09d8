"""Laws of `bsm --help` and of each command's help."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from processes import bsm, printed

from bsmamba2.cli import COMMANDS, GROUPS, cli

CONTEXT = click.Context(cli, info_name="bsm")
HEADINGS = re.compile(r"^(\S.*):$", re.MULTILINE)


def options(command: str) -> list[str]:
    """The long names of a command's options, in the order of its help."""
    return re.findall(r"^  (?:-\w, )?(--[\w-]+)", bsm(command, "--help").out, re.MULTILINE)


def test_commands_stand_in_groups_with_their_whole_first_sentence() -> None:
    out = bsm("--help").out
    assert HEADINGS.findall(out) == [*GROUPS, "Options"]
    assert re.findall(r"^  ([a-z]+)  +[A-Z].*\.$", out, re.MULTILINE) == list(COMMANDS)
    assert "..." not in out.partition("Separation:")[2]


def test_help_imports_no_backend() -> None:
    code = (
        "import sys; from bsmamba2.cli import cli\n"
        "for command in ([], ['infer'], ['train'], ['export']):\n"
        "    try: cli.main([*command, '--help'])\n"
        "    except SystemExit: pass\n"
        "print(sorted({'torch', 'onnxruntime', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    assert printed(code).splitlines()[-1] == "[]"


def test_help_needs_no_docstrings() -> None:
    code = (
        "from bsmamba2.cli import cli\n"
        f"for name in {COMMANDS}:\n"
        "    for more in ([], ['build'] if name == 'plugin' else []):\n"
        "        try: cli.main([name, *more, '--help'], prog_name='bsm')\n"
        "        except SystemExit: pass"
    )
    assert printed(code, PYTHONOPTIMIZE="2") == printed(code)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_every_option_once(name: str) -> None:
    command = cli.get_command(CONTEXT, name)
    assert command is not None
    known = [p.opts[-1] for p in command.get_params(CONTEXT) if isinstance(p, click.Option)]
    assert options(name) == known


@pytest.mark.parametrize(("name", "first"), [
    ("infer", ["--engine", "--out", "--stems", "--format"]),
    ("export", ["--output", "--fp16", "--int8", "--trt"]),
    ("train", ["--data", "--out", "--config", "--set"]),
    ("eval", ["--data", "--split", "--stems", "--against", "--report"]),
])  # fmt: skip
def test_what_everybody_needs_comes_first_and_the_rest_under_headings(
    name: str, first: list[str]
) -> None:
    out = bsm(name, "--help").out
    headings = HEADINGS.findall(out)
    assert headings[0] == "Options"
    assert len(headings) >= 3
    section = out.partition("\nOptions:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^  (?:-\w, )?(--[\w-]+)", section, re.MULTILINE) == first


def test_a_file_in_place_of_a_command_suggests_infer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "infer" not in bsm("song.wav").err
    Path("song.wav").touch()
    done = bsm("song.wav", "--jobs", "2")
    assert done.code == 2
    assert "No such command 'song.wav'; did you mean 'bsm infer song.wav'?\n" in done.err


def test_a_batch_is_a_number_or_auto() -> None:
    done = bsm("infer", "song.wav", "--batch", "foo")
    assert done.code == 2
    assert "'foo' is neither a whole number nor auto." in done.err
    assert "0 is not in the range x>=1" in bsm("infer", "song.wav", "--batch", "0").err


def test_the_columns_of_all_sections_are_aligned() -> None:
    rows = re.findall(r"^(  +--?\S.*?  +)\S", bsm("infer", "--help").out, re.MULTILINE)
    assert len(rows) > 20
    assert len({len(row) for row in rows}) == 1
