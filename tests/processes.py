"""Python code and `bsm` in processes of their own, and what came of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent
MAIN = "import sys; from bsmamba2.cli import main; main(sys.argv[1:])"
"""Runs `bsm` with the arguments of the process."""
WITHOUT_TORCH = "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
"""Importing either then fails."""


class Outcome(NamedTuple):
    """Of a command in this process."""

    code: int
    out: str
    err: str


def python(
    code: str, *arguments: str | Path, folder: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs code in a folder, with some environment variables of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )


def printed(code: str, *arguments: str | Path, folder: Path | None = None, **variables: str) -> str:
    """What code prints that succeeds."""
    done = python(code, *arguments, folder=folder, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout
