"""`bsm practice`, killed, refused and interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from practice_tools import SOUNDFONT, contents, skip_without_synthesisers
from processes import MAIN, printed

from bsmamba2.cli import main
from bsmamba2.data.practice.workers import share_out
from bsmamba2.errors import BsmError, MissingExtraError

SONGS = ["--valid", "0", "--test", "0", "--seconds", "2", "--soundfont", str(SOUNDFONT), "-q"]
"""All counts of `bsm practice` except --train."""


@pytest.fixture
def _synthesisers() -> None:
    skip_without_synthesisers()


def start(folder: Path, *arguments: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAIN, "practice", str(folder), *SONGS, *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    process = start(folder, *arguments)
    error = process.communicate()[1]
    return process.returncode, error


@pytest.fixture
def run_here(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`run` without a process of its own; libraries in C may not print either."""

    def run(folder: Path, *arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            main(["practice", str(folder), *SONGS, *arguments])
        return int(end.value.code or 0), capfd.readouterr().err

    return run


def wait_for(pattern: str, folder: Path, process: subprocess.Popen[str]) -> None:
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def is_complete(song: Path) -> bool:
    stems = ("mixture", "vocals", "drums", "bass", "other")
    return sorted(p.name for p in song.iterdir()) == sorted(
        ["song.json", *(f"{stem}.wav" for stem in stems)]
    )


@pytest.mark.usefixtures("_synthesisers")
def test_a_killed_run_leaves_whole_songs_and_is_completed_by_the_next(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(killed, "--train", "9", "--jobs", "2")
    wait_for("train/*", killed, process)  # while others are being made
    process.kill()
    process.communicate()
    done = len(list(killed.glob("train/*")))
    assert done < 9
    assert list(killed.glob(".partial-*"))
    assert all(is_complete(song) for song in killed.glob("train/*"))
    assert run(killed, "--train", f"{done + 1}") == (0, "")
    assert run(whole, "--train", f"{done + 1}") == (0, "")
    assert contents(killed) == contents(whole)
    assert not list(killed.glob(".partial-*"))


@pytest.mark.usefixtures("_synthesisers")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_without_traceback_and_leaves_nothing_partial(
    tmp_path: Path, jobs: str
) -> None:
    process = start(tmp_path, "--train", "50", "--jobs", jobs, start_new_session=True)
    wait_for("train/*", tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    error = process.communicate()[1]
    assert (process.returncode, error.strip()) == (130, "Interrupted.")
    assert not list(tmp_path.glob(".partial-*"))
    assert all(is_complete(song) for song in tmp_path.glob("train/*"))


@pytest.mark.usefixtures("_synthesisers")
def test_a_folder_belongs_to_one_set(
    tmp_path: Path, run_here: Callable[..., tuple[int, str]]
) -> None:
    assert run_here(tmp_path, "--train", "1") == (0, "")
    before = contents(tmp_path)
    code, error = run_here(tmp_path, "--train", "1", "--seed", "1")
    assert (code, error) == (
        1,
        f"Error: {tmp_path} holds practice songs made with another seed: choose another folder.\n",
    )
    assert contents(tmp_path) == before
    (tmp_path / "practice.json").unlink()
    code, error = run_here(tmp_path, "--train", "1")
    assert code == 1
    assert "holds songs that are not practice songs" in error


@pytest.mark.usefixtures("_synthesisers")
def test_an_error_in_another_process_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "train").symlink_to(tmp_path / "nowhere")
    code, error = run(tmp_path, "--train", "2", "--jobs", "2")
    assert code == 1
    assert error.startswith(f"Error: Cannot write {tmp_path}/train/song-0000")
    assert error.endswith(": File exists.\n")
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["practice.json", "train"]


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from bsmamba2.data.practice.generate import write_stems
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_stems(Path(sys.argv[1]), {"mixture": np.zeros((2, 100_000), np.int16)})
except OSError as error:
    print(error.strerror)
"""


def test_a_full_disk_is_noticed(tmp_path: Path) -> None:
    """The process may only write small files; libsndfile would not report why it failed."""
    assert printed(FULL_DISK, tmp_path) == "File too large\n"


@pytest.mark.usefixtures("_synthesisers")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file: {}."),
        (b"no soundfont at all", "{} is not a soundfont or is truncated"),
        (b"RIFF\x00\x10\x00\x00sfbk", "{} is not a soundfont or is truncated"),
    ],
)
def test_a_file_that_is_not_a_soundfont_leaves_no_folder(
    tmp_path: Path,
    run_here: Callable[..., tuple[int, str]],
    content: bytes | None,
    message: str,
) -> None:
    font, folder = tmp_path / "font.sf2", tmp_path / "songs"
    if content is not None:
        font.write_bytes(content)
    code, error = run_here(folder, "--soundfont", str(font))
    assert (code, error.count("\n")) == (1, 1)
    assert message.format(font) in error
    assert not folder.exists()


@pytest.mark.usefixtures("_synthesisers")
def test_missing_programs_are_named_as_packages(
    tmp_path: Path,
    run_here: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, error = run_here(tmp_path / "songs")
    assert code == 1
    assert "apt-get install espeak-ng flite" in error
    assert error.count("\n") == 1


def test_a_missing_soundfont_is_named_as_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bsmamba2.data.practice import sounds

    monkeypatch.setattr(sounds, "SOUNDFONT_FOLDERS", (str(tmp_path),))
    with pytest.raises(BsmError, match="apt-get install fluid-soundfont-gm"):
        sounds.find_soundfonts()


@pytest.mark.usefixtures("_synthesisers")
@pytest.mark.parametrize("module", ["fluidsynth", "pyworld"])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    from bsmamba2.data.practice.installed import check_installed

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bsmamba2\[practice\]'"):
        check_installed()


def die(task: int) -> int:
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def test_a_process_that_is_killed_ends_the_run() -> None:
    with pytest.raises(BsmError, match="fewer --jobs"):
        list(share_out(die, range(4), jobs=2))


def test_results_do_not_depend_on_the_number_of_processes() -> None:
    assert sorted(share_out(abs, range(-5, 0), jobs=3)) == list(share_out(abs, range(1, 6), 1))
