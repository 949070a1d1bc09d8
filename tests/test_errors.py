"""Errors as an interface: every class has a meaning, a fix, and a command that causes it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from error_cases import CASES, ErrorCase, provoke
from error_page import PAGE, error_classes, folder_of_cases, meaning, page, say_all

import bsmamba2
from bsmamba2.cli import main
from bsmamba2.errors import BsmError, OptionError

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path
    for room in ("bsmamba2", "export", "runtime", "plugins")
    for path in (ROOT / room).rglob("*.py")
)
KINDS = {kind.__name__ for kind in error_classes()} | {"BsmError", "ScanError"}
_FIX = re.compile(r"[:;] \S|\. [A-Z{]|\bmust\b")
"""How a message introduces the fix: a colon, a semicolon, a second sentence, or "must"."""


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with folder_of_cases(tmp_path_factory.mktemp("errors")):
        yield


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.command)
def test_commands_raise_their_class_with_one_sentence(case: ErrorCase) -> None:
    error = provoke(case)
    assert type(error) is case.kind or case.call
    assert isinstance(error, case.kind)
    assert re.fullmatch(r"[^\n]{20,400}", str(error))
    assert _FIX.search(str(error))


@pytest.mark.parametrize(
    "command",
    ["import {}.ckpt", "eval default --data {}", "train --data {} --out new"],
)
def test_names_that_are_too_long_are_one_sentence(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(command.format("x" * 300).split())
    assert done.value.code == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"Error: The name x+\S* is too long: choose a shorter one\.", said)


@pytest.mark.parametrize("kind", error_classes())
def test_every_class_has_a_meaning_a_fix_and_a_case(kind: type[BsmError]) -> None:
    assert all(meaning(kind))
    assert kind in {case.kind for case in CASES}


@pytest.mark.parametrize(
    "case", {case.kind: case for case in CASES if not (case.call or case.without)}.values(),
    ids=lambda case: case.kind.__name__,
)  # fmt: skip
def test_the_command_line_prints_it_and_exits_with_its_code(
    case: ErrorCase, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(case.command.split())
    assert done.value.code == (2 if case.kind is OptionError else 1)
    assert f"Error: {provoke(case)}\n" in capsys.readouterr().err


def test_the_page_is_up_to_date() -> None:
    made = page(say_all())
    assert PAGE.read_text("utf-8") == made, "run python tests/error_page.py"


def raised(path: Path) -> Iterator[tuple[str, int, str]]:
    """Yields class, line and text of every error in a file; {} replaces formatted values."""
    text = path.read_text("utf-8")
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        name, arguments = node.func.id, node.args
        if name == "require" and "config.reading import" in text:
            name, arguments = "ConfigError", arguments[1:]
        if name in KINDS and arguments:
            yield name, node.lineno, _text(arguments[0])


def _text(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_text(value) for value in values)
        case _:
            return "{}"


ALL_RAISED = [(path, *found) for path in SOURCES for found in raised(path)]


def test_the_sources_were_read() -> None:
    assert len(ALL_RAISED) > 250
    assert Path(bsmamba2.__file__).name == "__init__.py"
    assert {name for _, name, _, _ in ALL_RAISED} >= KINDS - {"BsmError"} - {"ScanError"}


def test_errors_are_raised_as_a_class_of_their_own() -> None:
    bare = [f"{path.name}:{line}" for path, name, line, _ in ALL_RAISED if name == "BsmError"]
    assert not bare, "raise a subclass of BsmError, such as FileError or OptionError"


def test_every_message_is_a_sentence_that_says_how_to_fix_it() -> None:
    poor = [
        f"{path.name}:{line}: {text}"
        for path, name, line, text in ALL_RAISED
        if name not in ("MissingExtraError", "ScanError")  # MissingExtraError adds its own fix
        and re.search(r"[a-z]{3}", text)  # not those that pass another message on
        and not (text.endswith((".", "?", "{}", ":")) and _FIX.search(text))
    ]
    assert not poor
