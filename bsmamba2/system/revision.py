"""The commit that a file of a checkout belongs to."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git_revision(file: str | Path) -> str | None:
    """Returns the commit of the repository that tracks `file`, with "+" if files differ from it.

    Returns None without git, or if no repository tracks the file: a package in a virtual
    environment does not belong to the repository in whose folder the environment lies.
    """
    path = Path(file).absolute()
    git = ["git", "-C", str(path.parent)]
    try:
        for question in (
            ["ls-files", "--error-unmatch", "--", path.name],
            ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"],
        ):
            done = subprocess.run(
                [*git, *question], capture_output=True, text=True, timeout=30, check=True
            )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
