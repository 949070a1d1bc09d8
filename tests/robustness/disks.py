"""Small disks, and the files in a folder."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


@functools.cache
def can_mount() -> bool:
    """Whether this process may mount file systems."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder), 1 << 16):
                return os.geteuid() == 0
        except (OSError, subprocess.CalledProcessError):
            return False


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """Mounts `size` bytes of memory as a file system on an empty folder; unmounts it afterwards."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Mounts a `small_disk` with other options, such as "size=1000000" or "ro"."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def visible(folder: Path) -> list[str]:
    """Names of the files below a folder that are neither hidden nor in a hidden folder."""
    return [name for name in _names(folder) if not _is_hidden(name) and (folder / name).is_file()]


def hidden(folder: Path) -> list[str]:
    """Names of the other files, and of empty hidden folders."""
    return [name for name in _names(folder) if _is_hidden(name)]


def _names(folder: Path) -> list[str]:
    """Names of all files and empty folders below a folder."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    )


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
