"""What killed processes leave behind, and several processes that write the same files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bsmamba2.files import atomic_path
from bsmamba2.temporary import remove_abandoned, temporary_folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs locks that end with a process")

HOLD = """
import sys
from pathlib import Path
from bsmamba2.files import atomic_path
from bsmamba2.temporary import temporary_folder
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
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (killed, its), (alive, other) = (holder(out / name) for name in ("a.wav", "b.wav"))
    foreign = [out / ".partial-notes.txt", out / ".partial-12345678.wav.old", out / ".hidden.wav"]
    for path in foreign:
        path.write_bytes(b"somebody's")
    (out / ".partial-abcdefgh").mkdir()
    (out / ".partial-abcdefgi").symlink_to(foreign[0])
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(partials(out)) == 6
    assert (its / "stdin").exists()

    with atomic_path(out / "c.wav") as partial, temporary_folder() as third:
        partial.write_bytes(b"whole")
        assert sorted(scratch.iterdir()) == sorted([other, third])
    assert (out / "c.wav").read_bytes() == b"whole"
    assert all(path.exists() for path in foreign)
    assert len(partials(out)) == 5

    alive.communicate("")
    assert alive.returncode == 0
    assert (out / "b.wav").read_bytes() == b"half"
    remove_abandoned(out)
    assert len(partials(out)) == 4  # none of them a temporary file of ours
    assert list(scratch.iterdir()) == []


RIVAL = """
import contextlib, sys
from pathlib import Path
from bsmamba2.errors import BsmError
from bsmamba2.files import atomic_paths
from bsmamba2.temporary import remove_abandoned
byte, fails, root = sys.argv[1].encode(), sys.argv[2] == "fails", Path(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(300):
    with contextlib.suppress(BsmError if fails else ()):
        with atomic_paths([root / "song" / "deep" / name for name in "ab"]) as files:
            for file in files:
                file.write_bytes(byte * 10_000)
            remove_abandoned(files[0].parent)
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
