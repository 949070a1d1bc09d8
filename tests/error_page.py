"""Writes bsmamba2/ERRORS.md from its table on: each class of error, and what commands say.

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
_TABLE = "| class | means | to mend it |\n|---|---|---|\n"
"""What stands above it in the page is written by hand."""


def error_classes() -> list[type[BsmError]]:
    """Of bsmamba2.errors, in its order; classes elsewhere are narrower ones of these."""
    found = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
    return [kind for kind in found if issubclass(kind, BsmError) and kind is not BsmError]


def meaning(kind: type[BsmError]) -> tuple[str, str]:
    """What a class means, and what mends it, from its docstring."""
    means, _, mend = inspect.getdoc(kind).partition("\n\nMend: ")
    return " ".join(means.split()), " ".join(mend.split())


def page(sentences: Mapping[str, str]) -> str:
    """The page: its head, then what the commands say."""
    text = PAGE.read_text("utf-8").partition(_TABLE)[0] + _TABLE
    for kind in error_classes():
        means, mend = meaning(kind)
        text += f"| `{kind.__name__}` | {means} | {mend[0].upper()}{mend[1:]} |\n"
    for kind in error_classes():
        text += f"\n## {kind.__name__}\n\n| command | says |\n|---|---|\n"
        for case in CASES:
            if case.kind is kind:
                said = sentences[_key(case)].replace("|", "\\|").replace("<", "&lt;")
                text += f"| {_key(case)} | {said} |\n"
    return text


def _key(case: ErrorCase) -> str:
    extra = " (without PyTorch)" if case.without else ""
    return f"`bsm {case.command}`{extra}"


@contextlib.contextmanager
def folder_of_cases(folder: Path) -> Iterator[None]:
    """Makes the files of the cases and goes there."""
    make_files(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def say_all() -> dict[str, str]:
    """What all cases say, in the current folder."""
    return {_key(case): str(provoke(case)) for case in CASES}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, folder_of_cases(Path(folder)):
        text = page(say_all())
    PAGE.write_text(text, "utf-8")
