"""Folders in the user's cache for files that processes load: nobody else may write there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bsmamba2.errors import FileError


def cache_folder(name: str, *, make: bool = True) -> Path:
    """Returns the folder bsmamba2/NAME in XDG_CACHE_HOME or ~/.cache.

    Args:
        name: Name of the folder.
        make: Make the folder if it is missing.

    Raises:
        FileError: The folder cannot be made, or others can write into it or replace it.
    """
    folder = _user_cache() / "bsmamba2" / name
    try:
        if not (make or folder.exists()):
            return folder
        folder.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (folder.parent, folder):
            path.mkdir(mode=0o700, exist_ok=True)
            check_private(path)
        for above in folder.resolve().parents:
            mode = above.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                raise FileError(
                    f"Other users can replace files in {above}: set XDG_CACHE_HOME to another "
                    "folder."
                )
    except OSError as error:
        raise FileError(
            f"Cannot use {folder}: {error.strerror or error}; set XDG_CACHE_HOME to another folder."
        ) from error
    return folder


def check_private(path: Path) -> None:
    """Raises FileError unless this user owns a path (a link, too) and others cannot write to it."""
    status = path.stat()
    if {status.st_uid, path.lstat().st_uid} != {os.geteuid()}:
        raise FileError(
            f"{path} belongs to another user: set XDG_CACHE_HOME to a folder of your own."
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise FileError(f"Others can write into {path}: delete it; it is only a cache.")


def _user_cache() -> Path:
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:  # the XDG specification says that relative paths must be ignored
        return named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise FileError("There is no home folder: set XDG_CACHE_HOME to a cache folder.") from error
