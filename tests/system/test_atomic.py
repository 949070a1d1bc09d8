"""Atomic writing: failures, signals, killed processes, and several that write the same files."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from bsmamba2.errors import BsmError, FileError
from bsmamba2.system.atomic import (
    atomic_folder,
    atomic_path,
    atomic_paths,
    check_paths,
    locked,
    remove_abandoned,
    temporary_folder,
    write_atomic,
    writing,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs locks that end with a process")

HOLD = """
import sys
from pathlib import Path
from bsmamba2.system.atomic import atomic_path, temporary_folder
with atomic_path(Path(sys.argv[1])) as partial, temporary_folder() as folder:
    partial.write_bytes(b"half")
    (folder / "stdin").write_bytes(b"half")
    print(folder, flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that is writing a file, and its temporary folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def partials(folder: Path) -> list[Path]:
    return list(folder.glob(".partial-*"))


def test_the_next_process_takes_away_what_a_killed_one_left_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir()
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (killed, its), (alive, other) = (holder(out / name) for name in ("a.wav", "b.wav"))
    foreign = [out / ".partial-notes.txt", out / ".partial-12345678.old", out / ".partial-abcdefgh"]
    for path in foreign:
        path.write_bytes(b"somebody's")
    (out / ".partial-notes").mkdir()
    (out / ".partial-abcdefgi").symlink_to(out / ".partial-notes")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(partials(out)) == 7
    assert (its / "stdin").exists()

    with atomic_path(out / "c.wav") as partial, temporary_folder() as third:
        partial.write_bytes(b"whole")
        assert sorted(scratch.iterdir()) == sorted([other, third])
    assert (out / "c.wav").read_bytes() == b"whole"
    assert all(path.exists() for path in foreign)
    assert len(partials(out)) == 6

    alive.communicate("")
    assert alive.returncode == 0
    assert (out / "b.wav").read_bytes() == b"half"
    remove_abandoned(out)
    assert len(partials(out)) == 5  # none of them is a temporary folder of ours
    assert list(scratch.iterdir()) == []


def test_what_was_left_above_folders_that_were_missing_then_is_taken_away(tmp_path: Path):
    killed, _ = holder(tmp_path / "out/b/b.wav")
    write_atomic(tmp_path / "out/a/a.wav", "whole")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(partials(tmp_path)) == 1
    holder(tmp_path / "out/b/b.wav")[0].communicate("")
    assert partials(tmp_path) == []


RIVAL = """
import contextlib, sys
from pathlib import Path
from bsmamba2.errors import BsmError
from bsmamba2.system.atomic import atomic_paths, remove_abandoned
byte, fails, root = sys.argv[1].encode(), sys.argv[2] == "fails", Path(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(300):
    with contextlib.suppress(BsmError if fails else ()):
        with atomic_paths([root / "song" / "deep" / name for name in "ab"]) as files:
            for file in files:
                file.write_bytes(byte * 10_000)
            remove_abandoned(root / "song" / "deep")
            if fails:
                raise BsmError("no song")
"""


@pytest.mark.parametrize("second", ["writes", "fails"])
def test_two_processes_that_write_the_same_files_leave_whole_ones(tmp_path: Path, second: str):
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", RIVAL, byte, does, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for byte, does in (("1", "writes"), ("2", second))
    ]
    for rival in rivals:
        assert rival.stdout is not None
        assert rival.stdout.readline() == "ready\n"
    for rival in rivals:
        assert rival.stdin is not None
        rival.stdin.write("go\n")
        rival.stdin.flush()
    said = [rival.communicate()[1] for rival in rivals]
    assert [rival.returncode for rival in rivals] == [0, 0], said
    for name in "ab":
        content = (tmp_path / "song" / "deep" / name).read_bytes()
        assert content in (b"1" * 10_000, b"2" * 10_000)
        assert content[:1] == b"1" or second == "writes"
    assert sorted(path.name for path in (tmp_path / "song" / "deep").iterdir()) == ["a", "b"]


def contents(folder: Path) -> dict[str, bytes]:
    """Names and contents of all files below a folder, hidden ones included."""
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["x" * 300, f"deep/{'x' * 300}/a"])
def test_a_name_that_is_too_long_is_one_sentence(tmp_path: Path, name: str):
    with pytest.raises(FileError, match=r"\ACannot write \S*: File name too long\.\Z"):
        write_atomic(tmp_path / name, "text")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_a_folder_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    write_atomic(Path("text"), "text")
    with pytest.raises(FileError, match=r"\ACannot write into text: Not a directory\.\Z"):
        write_atomic(Path("text/deep/a"), "text")


@pytest.mark.parametrize("name", [
    "file/song.wav", "folder", "link/song.wav", f"new/{'y' * 300}/song.wav", f"{'ä' * 130}.wav",
    "/".join(["z" * 200] * 21), "/".join(["z" * 90] * 50), f"new/{'y' * 255}", "new/song.wav",
])  # fmt: skip
def test_paths_are_checked_as_they_are_written(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder").mkdir()
    Path("link").symlink_to("gone")
    before = set(tmp_path.iterdir())
    sentences = []
    for begin in (lambda path: check_paths([path]), lambda path: atomic_path(path).__enter__()):
        try:
            begin(Path(name))
        except FileError as error:
            sentences.append(str(error))
        assert set(tmp_path.iterdir()) == before
    assert len(sentences) == (0 if name in (f"new/{'y' * 255}", "new/song.wav") else 2)
    assert len(set(sentences)) <= 1


@pytest.mark.parametrize("make", [atomic_path, atomic_folder])
def test_missing_folders_are_made_when_all_is_done(tmp_path: Path, make: Callable[..., Any]):
    path = tmp_path / "deep" / "album" / "a"
    with pytest.raises(BsmError), make(path):
        raise BsmError("no song")
    assert list(tmp_path.iterdir()) == []
    with make(path):
        pass
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_somebody_has_removed_leaves_the_others_as_they_were(tmp_path: Path):
    paths = [tmp_path / "a", tmp_path / "b"]
    paths[0].write_text("earlier")
    with pytest.raises(FileError), atomic_paths(paths) as partials:
        partials[1].unlink()
    assert contents(tmp_path) == {"a": b"earlier"}


def write_new(paths: list[Path]) -> None:
    with atomic_paths(paths) as files:
        for file in files:
            file.write_bytes(b"new")


@pytest.mark.parametrize("earlier", ["none", "linked", "copied"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "no"), KeyboardInterrupt()])
@pytest.mark.parametrize("moment", ["before a", "after a", "before b", "after b"])
def test_all_files_are_new_or_what_they_were_when_a_rename_fails_or_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, error: BaseException, earlier: str
):
    paths = [tmp_path / name for name in "ab"]
    if earlier != "none":
        for path in paths:
            path.write_bytes(b"earlier " + path.name.encode())
    before, replace = contents(tmp_path), Path.replace

    def fail(source: Path, target: Path) -> None:
        is_new = source.name == target.name  # not an earlier file that is restored
        if is_new and moment == f"before {target.name}":
            raise error
        replace(source, target)
        if is_new and moment == f"after {target.name}":
            raise error

    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "none")

    monkeypatch.setattr(Path, "replace", fail)
    if earlier == "copied":
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(FileError if isinstance(error, OSError) else KeyboardInterrupt):
        write_new(paths)
    assert contents(tmp_path) == (dict.fromkeys("ab", b"new") if moment == "after b" else before)
    assert partials(tmp_path) == []


@pytest.mark.parametrize("fails", ["block", "rename", None])
def test_a_folder_replaces_an_earlier_one_or_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str | None
):
    target = tmp_path / "deep" / "model"
    with atomic_folder(target) as folder:
        (folder / "a").write_bytes(b"earlier")
    rename = Path.rename

    def fail(source: Path, to: Path) -> None:
        if fails == "rename" and source.name == target.name and source != target:
            raise OSError(errno.EIO, "no")
        rename(source, to)

    monkeypatch.setattr(Path, "rename", fail)
    error = {"block": KeyboardInterrupt, "rename": FileError, None: ()}[fails]
    try:
        with atomic_folder(target) as folder:
            (folder / "b").write_bytes(b"new")
            if fails == "block":
                raise KeyboardInterrupt
    except error:
        assert contents(tmp_path) == {"a": b"earlier"}
    else:
        assert contents(tmp_path) == {"b": b"new"}
    assert sorted(path.name for path in target.parent.iterdir()) == ["model"]


def test_only_errors_of_writing_become_sentences(tmp_path: Path):
    path = tmp_path / "deep" / "out.wav"

    def fill(error: OSError, *, is_write: bool) -> None:
        with atomic_path(path) as partial, writing(path) if is_write else nullcontext():
            partial.write_bytes(b"half")
            raise error

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for error in (full, FileNotFoundError(errno.ENOENT, "gone", "song.wav")):
        with pytest.raises(type(error)) as raised:
            fill(error, is_write=False)
        assert raised.value is error
    with pytest.raises(FileError) as sentence:
        fill(full, is_write=True)
    assert str(sentence.value) == f"Cannot write {path}: No space left on device."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_are_the_umasks_which_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
):
    before = os.umask(umask)
    try:
        with monkeypatch.context() as patched:
            patched.delattr(os, "umask")
            write_atomic(tmp_path / "a", "text")
            with atomic_folder(tmp_path / "b"):
                pass
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("name", ["lock", ""])
def test_a_lock_ends_with_its_process_whatever_that_has_forked(tmp_path: Path, name: str):
    code = """
import os, sys, time
from pathlib import Path
from bsmamba2.system.atomic import locked
with locked(Path(sys.argv[1]), print):
    if not os.fork():
        print("held", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / name)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"

        class TakenError(Exception):
            pass

        def refuse() -> None:
            raise TakenError

        with pytest.raises(TakenError), locked(tmp_path / name, refuse):
            pass
        process.kill()
        process.wait()
        with locked(tmp_path / name, refuse):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_stdout_is_one_sentence():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from bsmamba2.cli import main; main(['info', 'default'])"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "Error: Cannot write: No space left on device; make room, or write elsewhere.\n"
    )
