"""Files and folders that appear whole or not at all, and locks against other processes.

What is not complete yet lies in a hidden folder, `.partial-...`, beside the place that it will
take. The folder is locked as long as its process lives. A process that is killed leaves it, but no
lock: the next one that writes beside it removes it. Where there are no such locks (Windows, some
network file systems), what is left stays until somebody deletes it; nothing takes it for a song.

An OSError in a block of `atomic_path`, `atomic_paths` or `atomic_folder` passes as it is: it may
come from reading a song or from training. Only what is within `writing`, which surrounds nothing
but writes, becomes the sentence of a FileError.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bsmamba2.errors import FileError

_PREFIX = ".partial-"
_NAME = re.compile(r"\.partial-[a-z0-9_]{8}")  # as tempfile makes them
_ATTEMPTS = 100  # to make a folder that others remove
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)

_folders_lock = threading.Lock()
"""Held where folders are made and removed, so that threads take none from each other."""
_made: set[Path] = set()
"""Folders that were made for what is not complete; they go again if they stay empty."""
_swept: set[Path] = set()
"""Folders in which this process has looked for what others left, once: they may hold millions."""
_locks: set[int] = set()
"""Open files and folders that hold locks."""


@contextlib.contextmanager
def writing(what: object) -> Iterator[None]:
    """Makes an OSError of a block that only writes a FileError, "Cannot write WHAT: ..."."""
    try:
        yield
    except OSError as error:
        raise FileError(f"Cannot write {what}: {error.strerror or error}.") from error


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a whole file, text as UTF-8, with missing folders; raises FileError."""
    with atomic_path(path) as partial, writing(path):
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """An empty file elsewhere, of the same name, that takes the path when the block succeeds.

    Missing folders are made. When the block raises, whatever the path was before stays as it was,
    and folders that were made go again.

    Raises:
        FileError: The folder cannot be made or written, or the path is one.
    """
    with atomic_paths([path]) as (partial,):
        yield partial


@contextlib.contextmanager
def atomic_paths(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """As `atomic_path` for several files that belong together: all take their paths, or none.

    They do so in their order: a process that is killed at that moment leaves the last ones as they
    were.
    """
    with contextlib.ExitStack() as stack:
        folders: dict[Path, Path] = {}
        partials: list[Path] = []
        for path in paths:
            with writing(path):  # a name may be too long to ask for
                is_folder = path.is_dir()
            if is_folder:
                raise FileError(f"Cannot write {path}: a folder has that name.")
            if path.parent not in folders:
                folders[path.parent] = stack.enter_context(temporary_folder(path.parent))
            partials.append(folders[path.parent] / path.name)
            with writing(path):
                partials[-1].touch()
        yield partials
        with writing(" and ".join(map(str, paths))):
            _take_paths(partials, paths)
        _keep_made(paths)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """An empty folder elsewhere, of the same name, that takes the path when the block succeeds.

    It replaces an earlier folder, which comes back if that fails; a process that is killed at that
    moment leaves none.

    Raises:
        FileError: The folder above cannot be made or written.
    """
    with temporary_folder(path.parent) as folder:
        new, earlier = folder / path.name, folder / f"{_PREFIX}earlier"
        with writing(path):
            new.mkdir()
        yield new
        with writing(path):
            try:
                if os.path.lexists(path):
                    path.rename(earlier)
                new.rename(path)
            except BaseException:  # Ctrl-C, too
                if new.exists() and os.path.lexists(earlier):
                    earlier.rename(path)
                raise
        _keep_made([path])


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """A private folder in another, or among the system's temporary files; gone afterwards.

    Raises:
        FileError: It cannot be made.
    """
    with contextlib.ExitStack() as stack:
        with writing(f"into {parent}" if parent else "a temporary file (TMPDIR names the folder)"):
            parent = parent or Path(tempfile.gettempdir())
            stack.callback(_remove_made, parent)
            path, lock = _new_folder(parent)
        stack.callback(_release, lock)
        stack.callback(shutil.rmtree, path, ignore_errors=True)
        yield path


@contextlib.contextmanager
def locked(path: Path, taken: Callable[[], object]) -> Iterator[None]:
    """Holds a folder, or a file that is made if need be, against other processes.

    The lock ends with the process, and processes that it forks do not hold it. A file stays:
    deleting it would let two processes lock two files of one name.

    Args:
        path: The folder or file.
        taken: Called where another process holds it; raises, or returns to wait.

    Raises:
        FileError: It cannot be opened.
    """
    with writing(path):
        is_folder = path.is_dir()
    with writing(f"into {path if is_folder else path.parent}"):
        flags = os.O_RDONLY if is_folder else os.O_RDWR | os.O_CREAT | _NO_FOLLOW
        lock = os.open(path, flags, 0o666)
    try:
        if not _lock(lock):
            taken()
            _lock(lock, wait=True)
        yield
    finally:
        _release(lock)


def link_or_copy(source: Path, target: Path) -> bool:
    """Gives a file a second name, or copies it where that is impossible; whether it is a link."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):  # another file system, or one without links
        shutil.copy2(source, target, follow_symlinks=False)
        return False
    return True


def remove_abandoned(folder: Path) -> None:
    """Removes what killed processes left in a folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                _remove_if_abandoned(entry.path)


def _take_paths(partials: Sequence[Path], paths: Sequence[Path]) -> None:
    """Renames all files; if one fails, every path is what it was before."""
    earlier = [partial.with_name(f"{_PREFIX}{index}") for index, partial in enumerate(partials)]
    for partial in partials:
        partial.stat()  # one that somebody has removed could not take its path
    try:
        for path, kept in zip(paths[:-1], earlier, strict=False):  # nothing fails after the last
            if os.path.lexists(path):
                link_or_copy(path, kept)
        for partial, path in zip(partials, paths, strict=True):
            partial.replace(path)
    except BaseException:  # Ctrl-C, too: what is where says more than how far we came
        if partials[-1].exists():
            for partial, path, kept in zip(partials, paths, earlier, strict=True):
                if partial.exists():
                    continue
                if os.path.lexists(kept):
                    kept.replace(path)
                else:
                    path.unlink()
        raise


def _new_folder(parent: Path) -> tuple[Path, int | None]:
    """A locked temporary folder and its lock, if there are locks; missing folders are made."""
    with _folders_lock:
        first = (place := parent.absolute()) not in _swept
        _swept.add(place)
    if first:
        remove_abandoned(parent)
    attempts = _ATTEMPTS
    while True:
        try:
            with _folders_lock:
                for folder in reversed((place, *place.parents)):
                    if not folder.exists():
                        folder.mkdir(exist_ok=True)
                        _made.add(folder)
                path = tempfile.mkdtemp(prefix=_PREFIX, dir=place)
            handle = _open(path)
        except FileNotFoundError:  # another process has just removed an empty folder
            attempts -= 1
            if not attempts:
                raise
            continue
        if handle is None or (_lock(handle) and _is_still(handle, path)):
            return Path(path), handle
        _release(handle)  # another process took it for abandoned


def _keep_made(paths: Sequence[Path]) -> None:
    """Notes that the folders above complete files were not made for nothing."""
    with _folders_lock:
        _made.difference_update(*(path.absolute().parents for path in paths))


def _remove_made(parent: Path) -> None:
    """Removes the empty folders that were made for nothing, the deepest first."""
    with _folders_lock:
        for folder in (parent.absolute(), *parent.absolute().parents):
            if folder in _made:
                with contextlib.suppress(OSError):  # others have something in it
                    folder.rmdir()
                    _made.discard(folder)


def _remove_if_abandoned(path: str) -> None:
    """Removes a folder of this user that no living process has."""
    with contextlib.suppress(OSError):
        if (handle := _open(path)) is None:
            return
        try:
            if os.fstat(handle).st_uid == os.geteuid() and _lock(handle, unknown=False):
                shutil.rmtree(path)
        finally:
            _release(handle)


def _open(folder: str) -> int | None:
    """A handle that can be locked; None where there are none."""
    return os.open(folder, os.O_RDONLY | _NO_FOLLOW) if os.name == "posix" else None


def _lock(handle: int, *, wait: bool = False, unknown: bool = True) -> bool:
    """Whether the lock is ours now, until the handle is closed; `unknown` where there are none."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (ModuleNotFoundError, OSError):
        return unknown
    _locks.add(handle)
    return True


def _release(handle: int | None) -> None:
    if handle is not None:
        _locks.discard(handle)
        os.close(handle)


def _is_still(handle: int, name: str) -> bool:
    """Whether the open folder has that name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(name, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _leave_to_parent() -> None:
    """Closes a forked process's copies of the locks, which would outlive the parent with it."""
    while _locks:
        os.close(_locks.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
