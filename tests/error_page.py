"""Writes the generated part of bsmamba2/ERRORS.md: each class, what it means, its fix, examples.

python tests/error_page.py
"""

from __future__ import annotations

import contextlib
import inspect
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from error_cases import CASES, ErrorCase, make_files, provoke

from bsmamba2 import errors
from bsmamba2.errors import BsmError

PAGE = Path(__file__).parent.parent / "bsmamba2" / "ERRORS.md"
_TABLE = "| class | what went wrong |\n|---|---|\n"
"""Start of the generated part; the page above it is written by hand."""


def error_classes() -> list[type[BsmError]]:
    """The classes in bsmamba2.errors, in order; classes elsewhere are subclasses of these."""
    found = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
    return [kind for kind in found if issubclass(kind, BsmError) and kind is not BsmError]


def meaning(kind: type[BsmError]) -> tuple[str, str]:
    """What a class of error means, and how to fix it, from its docstring."""
    means, _, fix = inspect.getdoc(kind).partition("\n\nFix: ")
    return " ".join(means.split()), " ".join(fix.split())


def page(sentences: Mapping[str, str]) -> str:
    """The page: its head, the table of classes, then for each class its fix and examples."""
    text = PAGE.read_text("utf-8").partition(_TABLE)[0] + _TABLE
    for kind in error_classes():
        name = kind.__name__
        text += f"| [`{name}`](#{name.lower()}) | {meaning(kind)[0]} |\n"
    for kind in error_classes():
        means, fix = meaning(kind)
        text += f"\n## {kind.__name__}\n\n{means}\n\n**How to fix it:** {fix}\n"
        text += "\n| example | message |\n|---|---|\n"
        for case in CASES:
            if case.kind is kind:
                said = sentences[_key(case)].replace("|", "\\|").replace("<", "&lt;")
                text += f"| {_key(case)} | {said} |\n"
    return text


def _key(case: ErrorCase) -> str:
    extra = " (without PyTorch)" if case.without else ""
    return case.command if case.call else f"`bsm {case.command}`{extra}"


@contextlib.contextmanager
def folder_of_cases(folder: Path) -> Iterator[None]:
    """Makes the files that the cases need and changes into their folder."""
    make_files(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def say_all() -> dict[str, str]:
    """Runs all cases in the current folder; returns their messages."""
    return {_key(case): str(provoke(case)) for case in CASES}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, folder_of_cases(Path(folder)):
        text = page(say_all())
    PAGE.write_text(text, "utf-8")
