"""Runs Python code in a process of its own, and `bsm` in this one."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner

from bsmamba2.cli import cli
from bsmamba2.errors import BsmError

TESTS = Path(__file__).parent
MAIN = "import sys; from bsmamba2.cli import main; main(sys.argv[1:])"
"""Runs `bsm` with the arguments of the process."""
WITHOUT_TORCH = "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
"""Makes importing torch or onnx fail."""

_SEPARATE: Any = (
    {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
)
"""Keeps stderr apart from stdout, as click 8.2 and newer always do."""


class Outcome(NamedTuple):
    """Exit code and output of a command that ran in this process."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]
"""Runs `bsm` with more arguments after some fixed ones."""


def bsm(*arguments: str | Path) -> Outcome:
    """Runs a command in this process; the sentence of its error ends its stderr."""
    result = CliRunner(**_SEPARATE).invoke(cli, [*map(str, arguments)])
    if isinstance(result.exception, BsmError):
        return Outcome(
            result.exception.exit_code, result.stdout, f"{result.stderr}{result.exception}"
        )
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def bsm_json(*arguments: str | Path) -> dict[str, Any]:
    """Runs a command that must succeed; returns its JSON document."""
    done = bsm(*arguments, "--json")
    assert done.code == 0, done.err
    document: dict[str, Any] = json.loads(done.out)
    return document


@contextlib.contextmanager
def no_new_threads() -> Iterator[None]:
    """The system refuses threads in the block: their stacks would fill the address space."""
    before = threading.stack_size(1 << 47)
    try:
        yield
    finally:
        threading.stack_size(before)


def python(
    code: str, *arguments: str | Path, folder: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own, in a folder and with some environment variables."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )


def printed(code: str, *arguments: str | Path, folder: Path | None = None, **variables: str) -> str:
    """Runs code that must succeed, as `python` does; returns what it prints."""
    done = python(code, *arguments, folder=folder, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout
