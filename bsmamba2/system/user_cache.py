"""Folders in the user's cache for what processes load: nobody else may write there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bsmamba2.errors import FileError


def cache_folder(name: str, *, make: bool = True) -> Path:
    """The folder bsmamba2/NAME in XDG_CACHE_HOME or ~/.cache; one that is absent is made, or not.

    Raises:
        FileError: It cannot be made, or others can write into it or exchange it.
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
                    f"Everybody can exchange what lies in {above}: name a folder elsewhere in "
                    "XDG_CACHE_HOME."
                )
    except OSError as error:
        raise FileError(
            f"Cannot use {folder}: {error.strerror or error}; name another folder in "
            "XDG_CACHE_HOME."
        ) from error
    return folder


def check_private(path: Path) -> None:
    """Raises FileError unless a path is this user's, as a link too, and others cannot write."""
    status = path.stat()
    if {status.st_uid, path.lstat().st_uid} != {os.geteuid()}:
        raise FileError(
            f"{path} belongs to another user: name a folder of yours in XDG_CACHE_HOME."
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise FileError(f"Others can write into {path}: delete it, it is only a cache.")


def _user_cache() -> Path:
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:  # a relative one is to be ignored, says its specification
        return named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise FileError("No home folder: name a cache folder in XDG_CACHE_HOME.") from error
