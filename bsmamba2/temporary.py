"""Temporary files and folders that a killed process cannot leave behind for ever.

Each is locked as long as its process lives. A process that is killed leaves it, but no lock: the
next one that writes beside it takes it away. Where there are no such locks (Windows, some network
file systems), what is left stays until somebody deletes it; nothing takes it for a song.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PREFIX = ".partial-"
"""Of files beside those that they will become; hidden."""
_FILE = re.compile(r"\.partial-[a-z0-9_]{8}(\.\w+)?")
_FOLDER_PREFIX = "bsm-"
_FOLDER = re.compile(r"bsm-[a-z0-9_]{8}")

_swept: set[Path] = set()
"""Folders in which this process has looked for what others left."""
_sweeping = threading.Lock()


@dataclass(frozen=True)
class Partial:
    """A temporary file."""

    path: Path
    handle: int | None
    """Holds the lock, where there are locks."""

    def close(self) -> None:
        """Frees the lock, and deletes the file unless it has another name by now."""
        self.path.unlink(missing_ok=True)
        if self.handle is not None:
            os.close(self.handle)


def new_partial(folder: Path, suffix: str) -> Partial:
    """Makes an empty temporary file; takes away those that killed processes left in the folder.

    Raises:
        OSError: The folder cannot be written.
    """
    with _sweeping:
        first = (place := folder.absolute()) not in _swept
        _swept.add(place)
    if first:
        remove_abandoned(folder)
    while True:
        handle, name = tempfile.mkstemp(prefix=PREFIX, suffix=suffix, dir=folder)
        if os.name != "posix":  # an open file could get no other name
            os.close(handle)
            return Partial(Path(name), None)
        if _lock(handle) and _is_still(handle, name):
            return Partial(Path(name), handle)
        os.close(handle)  # another process took it for abandoned


def remove_abandoned(folder: Path) -> None:
    """Deletes the temporary files in a folder that no living process has."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _FILE.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                _take_away(entry.path, os.unlink)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder among the system's temporary files, gone afterwards; takes away abandoned ones.

    Raises:
        OSError: It cannot be made; of the block as well.
    """
    root = tempfile.gettempdir()
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            if _FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                _take_away(entry.path, shutil.rmtree)
    while True:
        name = tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=root)
        with contextlib.suppress(FileNotFoundError):  # another process took it for abandoned
            handle = _open(name)
            if handle is None or (_lock(handle) and _is_still(handle, name)):
                break
            os.close(handle)
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _take_away(path: str, remove: Callable[[str], None]) -> None:
    """Removes a file or folder of this user that no living process has."""
    with contextlib.suppress(OSError):
        if (handle := _open(path)) is None:
            return
        try:
            if os.fstat(handle).st_uid == os.geteuid() and _lock(handle, unknown=False):
                remove(path)
        finally:
            os.close(handle)


def _open(path: str) -> int | None:
    """A handle that can be locked; None where there are none."""
    if os.name != "posix":
        return None
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _lock(handle: int, *, unknown: bool = True) -> bool:
    """Takes the lock, freed when the handle is closed; `unknown` where there are none."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ModuleNotFoundError, OSError):
        return unknown
    return True


def _is_still(handle: int, name: str) -> bool:
    """Whether the open file or folder has that name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(name, follow_symlinks=False))
    except FileNotFoundError:
        return False
