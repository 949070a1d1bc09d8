"""Atomic files and folders, which appear whole or not at all, and locks against other processes.

Incomplete files lie in a hidden folder, `.partial-...`, beside their final place, or beside the
first missing folder above it. The hidden folder is locked as long as its process lives. A killed
process leaves the folder but no lock, so the next process that writes there or below removes it.
Where there are no such locks (Windows, some network file systems), leftovers stay until they are
deleted by hand; no command mistakes them for songs.

An OSError in a block of `atomic_path`, `atomic_paths` or `atomic_folder` is passed on unchanged: it
may come from reading a song or from training. Only errors within `writing`, which surrounds nothing
but writes, become a FileError.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bsmamba2.errors import FileError

_PREFIX = ".partial-"
_NAME = re.compile(r"\.partial-[a-z0-9_]{8}")  # the names that tempfile makes
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)

_swept: set[Path] = set()
"""Folders already searched for leftovers: only once each, as they may hold millions of files."""
_locks: set[int] = set()
"""Handles of the files and folders that are locked."""


@contextlib.contextmanager
def writing(what: object) -> Iterator[None]:
    """Turns an OSError of a block that only writes into a FileError, "Cannot write WHAT: ..."."""
    try:
        yield
    except OSError as error:
        raise FileError(f"Cannot write {what}: {error.strerror or error}.") from error


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file atomically, text as UTF-8, and makes missing folders; raises FileError."""
    with atomic_path(path) as partial, writing(path):
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields an empty file of the same name that replaces the path if the block succeeds.

    Missing folders are made then, too. If the block raises, the path is left unchanged.

    Raises:
        FileError: The folder cannot be made or written, or the path is a folder.
    """
    with atomic_paths([path]) as (partial,):
        yield partial


@contextlib.contextmanager
def atomic_paths(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Does the same as `atomic_path` for several files: all replace their paths, or none.

    Paths are replaced in order: a process killed meanwhile leaves the last ones unchanged.
    """
    with contextlib.ExitStack() as stack:
        folders: dict[Path, Path] = {}
        partials: list[Path] = []
        for path in paths:
            above, rest = _place_of_file(path)
            if above not in folders:
                folders[above] = stack.enter_context(temporary_folder(above))
            partials.append(folders[above] / rest)
            with writing(path):
                partials[-1].parent.mkdir(parents=True, exist_ok=True)
                partials[-1].touch()
        yield partials
        with writing(" and ".join(map(str, paths))):
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
            _take_paths(partials, paths)


def check_paths(paths: Sequence[Path]) -> None:
    """Raises the FileError with which `atomic_paths` would begin, without writing anything."""
    for path in paths:
        above, rest = _place_of_file(path)
        with writing(f"into {above}"):
            os.stat(os.path.join(above, ""))  # raises unless it is a folder
            if not os.access(above, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        partial = above.absolute() / f"{_PREFIX}{'x' * 8}" / rest
        with writing(path):
            for part in (partial, *(above / name for name in rest.parts)):
                with contextlib.suppress(FileNotFoundError):
                    part.lstat()  # raises if a name or the whole path is too long


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder of the same name that replaces the path if the block succeeds.

    If the replacement fails, the earlier folder is restored; a process killed during it may leave
    neither folder.

    Raises:
        FileError: The parent folder cannot be made or written.
    """
    above, rest = _existing_folder(path)
    with temporary_folder(above) as folder:
        new, earlier = folder / rest, folder / f"{_PREFIX}earlier"
        with writing(path):
            new.mkdir(parents=True)
        yield new
        with writing(path):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if os.path.lexists(path):
                    path.rename(earlier)
                new.rename(path)
            except BaseException:  # including Ctrl-C
                if new.exists() and os.path.lexists(earlier):
                    earlier.rename(path)
                raise


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yields a private folder in `parent` or the system's temporary folder; removes it afterwards.

    Raises:
        FileError: The folder cannot be made.
    """
    with writing(f"into {parent}" if parent else "a temporary file (TMPDIR names the folder)"):
        path, lock = _new_folder((parent or Path(tempfile.gettempdir())).absolute())
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _release(lock)


@contextlib.contextmanager
def locked(path: Path, taken: Callable[[], object]) -> Iterator[None]:
    """Locks a folder, or a file that is made if missing, against other processes.

    The lock ends with the process, and forked processes do not inherit it. The file is never
    deleted: two processes could then lock two files of the same name.

    Args:
        path: The folder or file.
        taken: Called if another process holds the lock; raises, or returns to wait for it.

    Raises:
        FileError: The path cannot be opened.
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


@contextlib.contextmanager
def claimed(folder: Path, lock: str = "") -> Iterator[None]:
    """Makes a folder and keeps other runs out of it while the block runs.

    Args:
        folder: The folder.
        lock: Name of a file in it to lock, which works on network file systems, too; by default
            the folder itself is locked.

    Raises:
        FileError: Another run uses the folder, or it cannot be made.
    """

    def refuse() -> None:
        raise FileError(
            f"Another run is writing into {folder}: wait for it, or name another folder."
        )

    with writing(f"into {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / lock, refuse):
        yield


def link_or_copy(source: Path, target: Path) -> bool:
    """Hard-links a file, or copies it where that is impossible; returns whether it is a link."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):  # another file system, or one without links
        shutil.copy2(source, target, follow_symlinks=False)
        return False
    return True


def remove_abandoned(folder: Path) -> None:
    """Removes what killed processes have left in a folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                _remove_if_abandoned(entry.path)


def remove_abandoned_above(folder: Path) -> None:
    """Removes what killed processes have left in a folder and above it; once per process."""
    folder = folder.absolute()
    for each in {folder, *folder.parents} - _swept:
        _swept.add(each)
        remove_abandoned(each)


def _take_paths(partials: Sequence[Path], paths: Sequence[Path]) -> None:
    """Renames all files; if one rename fails, restores every path."""
    earlier = [partial.with_name(f"{_PREFIX}{index}") for index, partial in enumerate(partials)]
    for partial in partials:
        partial.stat()  # raises if somebody has removed it
    try:
        for path, kept in zip(paths[:-1], earlier, strict=False):  # not needed for the last path
            if os.path.lexists(path):
                link_or_copy(path, kept)
        for partial, path in zip(partials, paths, strict=True):
            partial.replace(path)
    except BaseException:  # including Ctrl-C: only the files show what was renamed
        if partials[-1].exists():
            for partial, path, kept in zip(partials, paths, earlier, strict=True):
                if partial.exists():
                    continue
                if os.path.lexists(kept):
                    kept.replace(path)
                else:
                    path.unlink()
        raise


def _place_of_file(path: Path) -> tuple[Path, Path]:
    """Splits a path as `_existing_folder` does; raises FileError if it is that of a folder."""
    with writing(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if stat.S_ISDIR(path.stat().st_mode):
            raise FileError(f"Cannot write {path}: a folder has that name; choose another.")
    return _existing_folder(path)


def _existing_folder(path: Path) -> tuple[Path, Path]:
    """Splits a path into the nearest folder above it that exists, and the rest."""
    above = next(folder for folder in path.parents if os.path.lexists(folder))
    return above, path.relative_to(above)


def _new_folder(parent: Path) -> tuple[Path, int | None]:
    """Makes a temporary folder and locks it; returns both, with None where there are no locks."""
    remove_abandoned_above(parent)
    while True:
        path = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        with contextlib.suppress(FileNotFoundError):  # another process took it for abandoned
            handle = _open(path)
            if handle is None or (_lock(handle) and _is_still(handle, path)):
                return Path(path), handle
            _release(handle)


def _remove_if_abandoned(path: str) -> None:
    """Removes a folder of this user that no living process holds."""
    with contextlib.suppress(OSError):
        if (handle := _open(path)) is None:
            return
        try:
            if os.fstat(handle).st_uid == os.geteuid() and _lock(handle, unknown=False):
                shutil.rmtree(path)
        finally:
            _release(handle)


def _open(folder: str) -> int | None:
    """Opens a folder as a handle that can be locked; None where there are no locks."""
    return os.open(folder, os.O_RDONLY | _NO_FOLLOW) if os.name == "posix" else None


def _lock(handle: int, *, wait: bool = False, unknown: bool = True) -> bool:
    """Tries to lock a handle until it is closed; returns `unknown` where there are no locks."""
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
    """Returns whether an open folder still has that name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(name, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _leave_to_parent() -> None:
    """Closes a forked process's copies of the locks, which could otherwise outlive the parent."""
    while _locks:
        os.close(_locks.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
