"""The environment of the packages that are compared, made once in the user's cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bsmamba2.cli.doctor_checks import version
from bsmamba2.errors import BsmError
from bsmamba2.system.user_cache import cache_folder

TORCH = "2.13.0"
"""Where this project's own environment has none."""


def requirements(wanted: Sequence[str]) -> list[str]:
    """With the torch that this environment has, so that both sides compute with the same."""
    torch = (version("torch") or TORCH).partition("+")[0]
    return [f"torch=={torch}", *dict.fromkeys(wanted)]


def make_environment(wanted: Sequence[str], say: Callable[[str], None]) -> Path:
    """The interpreter of an environment with these requirements, made where it is absent.

    Args:
        wanted: For pip, in one command together, so that their versions fit.
        say: Called with a sentence before what takes long.

    Raises:
        BsmError: pip could not install them, or no cache.
    """
    listed = "\n".join([sys.version, *wanted])
    folder = cache_folder("peers") / hashlib.sha256(listed.encode()).hexdigest()[:12]
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    say(f"installing {', '.join(wanted)} into an environment in the cache; takes about 1.5 GB")
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([str(python), "-m", "pip", "install", "--quiet", *wanted])
    ready.touch()
    return python


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()
        raise BsmError(
            f"The environment of the peers cannot be made: {last[-1] if last else 'no reason'}; "
            "leave --peers out, or mend it and run again."
        )
