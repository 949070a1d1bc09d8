"""Where built libraries are kept: one folder a build, in the user's own cache.

A folder has its final name only when it is complete, and holds the SHA-256 of its libraries. What
is found there will be loaded into processes, so nothing is taken from a folder that somebody else
could have written.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bsmamba2.errors import PluginError
from bsmamba2.system.files import sha256_file

SCAN, PLUGIN = "libbsm_scan.so", "libbsm_trt_plugin.so"
PTXAS_LOG = "ptxas.log"
_RECORD = "build.json"


@dataclass(frozen=True, kw_only=True)
class Libraries:
    """A finished build."""

    scan: Path
    """libbsm_scan.so, the C interface of include/bsm_scan.h."""
    plugin: Path | None
    """libbsm_trt_plugin.so, which needs no other library of ours; None if it was not built."""
    architectures: tuple[str, ...]
    """In CMake's words: 90-real is machine code, 90-virtual PTX."""
    ptxas_log: Path
    """What ptxas said of each kernel's registers and spills."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a build was made from, and the SHA-256 of what it gave."""

    sources: str
    """SHA-256 of all sources."""
    sizes: tuple[str, ...]
    """Kernels that were chosen; none for all."""
    architectures: tuple[str, ...]
    sha256: dict[str, str]
    """By file name."""


def make_cache() -> Path:
    """The folder of all builds, made where it is absent and private to this user.

    It is bsmamba2/plugins in XDG_CACHE_HOME or ~/.cache.

    Raises:
        PluginError: It cannot be made, or others can write into it.
    """
    root = _cache_path()
    with _as_sentence(root):
        root.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.parent.mkdir(mode=0o700, exist_ok=True)
        root.mkdir(mode=0o700, exist_ok=True)
    return _checked(root)


def make_folder(name: str) -> Path:
    """Another folder of this user's cache, beside that of the builds and as private.

    Raises:
        PluginError: As `make_cache`.
    """
    folder = make_cache().parent / name
    with _as_sentence(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        _check_private(folder)
    return folder


def find_cache() -> Path | None:
    """The folder of all builds; None before the first.

    Raises:
        PluginError: It cannot be read, or others can write into it.
    """
    root = _cache_path()
    with _as_sentence(root):
        return _checked(root) if root.exists() else None


def load_build(folder: Path) -> tuple[Record, Libraries] | None:
    """A build whose record is complete; None where there is none. `is_intact` checks the files."""
    try:
        values = json.loads((folder / _RECORD).read_text("utf-8"))
        record = Record(
            sources=str(values["sources"]),
            sizes=tuple(map(str, values["sizes"])),
            architectures=tuple(map(str, values["architectures"])),
            sha256={name: str(values["sha256"][name]) for name in values["sha256"]},
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    libraries = Libraries(
        scan=folder / SCAN,
        plugin=folder / PLUGIN if PLUGIN in record.sha256 else None,
        architectures=record.architectures,
        ptxas_log=folder / PTXAS_LOG,
    )
    return record, libraries


def is_intact(folder: Path, record: Record) -> bool:
    """Whether folder and libraries are private, and these are the ones that were built.

    Nobody else can change between this and the loading what nobody else can write.
    """
    try:
        for path in (folder, *(folder / name for name in record.sha256)):
            _check_private(path)
        return SCAN in record.sha256 and all(
            not (folder / name).is_symlink() and sha256_file(folder / name) == digest
            for name, digest in record.sha256.items()
        )
    except (OSError, PluginError):
        return False


def write_record(folder: Path, record: Record) -> None:
    """Writes what makes a folder of libraries a build; the last thing to do before it has its name.

    Whoever has loaded the libraries of an older folder of that name keeps them.
    """
    (folder / _RECORD).write_text(json.dumps(asdict(record), indent=2) + "\n", "utf-8")


def _cache_path() -> Path:
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:  # a relative one is to be ignored, says its specification
        user = named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise PluginError("No home folder: name a cache folder in XDG_CACHE_HOME.") from error
    return user / "bsmamba2" / "plugins"


@contextlib.contextmanager
def _as_sentence(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PluginError(
            f"Cannot use {root}: {error.strerror or error}; name another folder in XDG_CACHE_HOME."
        ) from error


def _checked(root: Path) -> Path:
    for folder in root.resolve().parents:
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise PluginError(
                f"Everybody can exchange what lies in {folder}: name a folder elsewhere in "
                "XDG_CACHE_HOME."
            )
    for folder in (root.parent, root):
        _check_private(folder)
    return root


def _check_private(path: Path) -> None:
    """Raises PluginError unless a path is this user's, as a link too, and others cannot write."""
    status = path.stat()
    if {status.st_uid, path.lstat().st_uid} != {os.geteuid()}:
        raise PluginError(
            f"{path} belongs to another user: name a folder of yours in XDG_CACHE_HOME."
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PluginError(f"Others can write into {path}: delete it, it is only a cache.")
