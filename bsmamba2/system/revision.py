"""Which commit a file of a checkout is of."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git_revision(file: str | Path) -> str | None:
    """The commit of the repository that tracks `file`, with "+" if files differ from it.

    None without git, or where nothing tracks the file: a package in a virtual environment is not
    of the repository whose folder that lies in.
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
