"""Writes bsmamba2/ERRORS.md: every class of error, and what commands say that go wrong.

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
_HEAD = """# Errors

Made by `python tests/error_page.py` from the classes in [`errors.py`](errors.py) and from what the
commands of [`tests/error_cases.py`](../tests/error_cases.py) say; do not edit.

A command that fails prints one sentence on stderr that says what is wrong and how to mend it, and
its exit code is not 0; `bsm --debug COMMAND ...` shows the traceback, too. In Python, the sentence
is the text of a subclass of `bsmamba2.errors.BsmError`. `ValueError` is for calls that no file and
no option can cause. A sentence that begins with "Unexpected" is a bug: please report it.

| exit code | |
|---|---|
| 0 | all was done |
| 1 | something failed; where there are several files, the others are done and failures come last |
| 2 | wrong usage: an unknown option, a missing argument |
| 130 | Ctrl-C; `bsm train` saves first, and after SIGTERM exits with 143 |

| class | means | to mend it |
|---|---|---|
"""


def error_classes() -> list[type[BsmError]]:
    """Of bsmamba2.errors, in its order; classes elsewhere are narrower ones of these."""
    found = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
    return [kind for kind in found if issubclass(kind, BsmError) and kind is not BsmError]


def meaning(kind: type[BsmError]) -> tuple[str, str]:
    """What a class means, and what mends it, from its docstring."""
    means, _, mend = inspect.getdoc(kind).partition("\n\nMend: ")
    return " ".join(means.split()), " ".join(mend.split())


def page(sentences: Mapping[str, str]) -> str:
    """The page, from what the commands say."""
    text = _HEAD
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
