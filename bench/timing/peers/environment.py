"""The environment of the packages to compare with, made once in the user's cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from bench.timing.peers.catalogue import PEERS
from bench.timing.turns import say
from bsmamba2.cli.doctor_checks import version
from bsmamba2.errors import BsmError
from bsmamba2.system.user_cache import cache_folder

TORCH = "2.13.0"
"""PyTorch's version if this project's environment has none; otherwise both use the same one."""


def make_environment() -> Path:
    """The interpreter of an environment with all of PEERS, which is made if necessary.

    Raises:
        BsmError: pip could not install them, or there is no cache.
    """
    torch = (version("torch") or TORCH).partition("+")[0]
    wanted = [f"torch=={torch}", *dict.fromkeys(peer.requirement for peer in PEERS.values())]
    listed = "\n".join([sys.version, *wanted])
    folder = cache_folder("peers") / hashlib.sha256(listed.encode()).hexdigest()[:12]
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    say(f"installing {', '.join(wanted)} into an environment in the cache; takes about 1.5 GB")
    shutil.rmtree(folder, ignore_errors=True)
    install = [python, "-m", "pip", "install", "--quiet", *wanted]
    for command in ([sys.executable, "-m", "venv", folder], install):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines() or ["no reason"]
            raise BsmError(
                f"The environment of the peers cannot be made: {last[-1]}; solve this and run "
                "again, or leave out --peers."
            )
    ready.touch()
    return python
