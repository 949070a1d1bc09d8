"""Options of `bsm infer` that choose songs, sections and output files."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import RATE, load, noise, save
from processes import MAIN, Command, printed

from bsmamba2.cli.infer import Time
from bsmamba2.system import atomic


def song(name: str, n: int = RATE) -> str:
    """Stereo noise, in 16 bits."""
    return str(save(Path(name), noise(n), subtype="PCM_16"))


def files() -> dict[str, int]:
    """Path of each file -> time of its last change, in ns."""
    found = (path for path in Path().rglob("*") if path.is_file())
    return {path.as_posix(): path.stat().st_mtime_ns for path in found}


# --- surround ---


def test_surround_is_separated_as_its_stereo_downmix(bsm_infer: Command):
    pytest.importorskip("av")
    surround = noise(RATE // 2, 6)
    save(Path("song.wav"), surround, subtype="FLOAT")
    assert "'bsm infer --downmix'" in bsm_infer("song.wav").err
    assert "stereo" in bsm_infer("song.wav", "--downmix", "--dry-run").out
    done = bsm_infer("song.wav", "--downmix", "--format", "wav", "--depth", "float")
    assert done.code == 0
    stems = np.sum([load(name) for name in done.out.split()], axis=0)
    expected = surround[:2] + np.sqrt(0.5) * (surround[2] + surround[4:])
    assert np.abs(stems - expected).max() < 1e-4
    before = files()
    assert bsm_infer("song.wav", "--downmix", "--skip-existing", "--depth", "float").code == 0
    assert files() == before


# --- a part of a song ---


@pytest.mark.parametrize(("text", "seconds"), [
    ("0", 0), ("75", 75), ("75.5", 75.5), (".5", 0.5), ("1:15", 75), ("01:05.25", 65.25),
    ("1:02:03.5", 3723.5), ("75:30", 4530),
])  # fmt: skip
def test_times_are_seconds_or_minutes(text: str, seconds: float):
    assert Time().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text", ["-1", "1:60", "1:75:30", "1:2:3:4", "nan", "inf", "1e3", "", "1:", "5s"]
)
def test_no_other_times(bsm_infer: Command, text: str):
    done = bsm_infer(song("song.wav"), f"--start={text}")
    assert done.code == 2
    assert "is not a time" in done.err
    assert set(files()) == {"song.wav"}


def test_a_part_of_a_song_is_separated_as_a_song_of_its_own(bsm_infer: Command):
    whole = load(song("song.wav", 3 * RATE))
    save(Path("part.wav"), whole[:, RATE : RATE + RATE // 2], subtype="FLOAT")
    part = bsm_infer("song.wav", "--start", "0:01", "--duration", "0.5")
    cut = bsm_infer("part.wav")
    for found, expected in zip(part.out.split(), cut.out.split(), strict=True):
        assert np.array_equal(load(found), load(expected))


def test_a_start_beyond_the_end_fails_one_song(bsm_infer: Command):
    done = bsm_infer(song("short.wav"), song("long.wav", 2 * RATE), "--start", "1.5")
    assert done.code == 1
    assert "Failed: short.wav ends before the start at 1.50 s" in done.err
    assert done.out.split() == ["out/long/vocals.wav", "out/long/instrumental.wav"]


# --- folders ---


def test_folders_in_folders_keep_their_place(bsm_infer: Command):
    for name in ("cd 1/ä.wav", "cd 2/deep/ä.wav", "b.wav", ".hidden/c.wav"):
        song(f"album/{name}", 1000)
    Path("album/loop").symlink_to(Path("album").resolve())
    done = bsm_infer("album", "-r", "--stems", "vocals")
    assert done.out.splitlines() == [
        "out/b/vocals.wav", "out/cd 1/ä/vocals.wav", "out/cd 2/deep/ä/vocals.wav"
    ]  # fmt: skip
    rows = done.err.splitlines()[-5:]
    assert rows[0].split()[:2] == ["song", "length"]
    assert rows[2].startswith("album/cd 1/ä.wav")
    assert "3 files" in rows[-1]


def test_stems_of_the_last_run_are_not_separated(bsm_infer: Command):
    song("a.wav", 1000)
    first = bsm_infer(".", "-r")
    song("b.wav", 1000)
    second = bsm_infer(".", "-r", "--skip-existing")
    assert first.out.split() == ["out/a/vocals.wav", "out/a/instrumental.wav"]
    assert second.out.split() == ["out/b/vocals.wav", "out/b/instrumental.wav"]


# --- what is there already ---


def test_complete_songs_are_skipped_and_others_done(bsm_infer: Command):
    names = [song(f"album/{letter}.wav", 2000) for letter in "abcde"]
    assert bsm_infer("album").code == 0
    Path("out/b/vocals.wav").unlink()
    damaged = Path("out/c/instrumental.wav")
    damaged.write_bytes(damaged.read_bytes()[:-100])
    save(Path("out/d/vocals.wav"), noise(1999), subtype="FLOAT")
    before = files()
    done = bsm_infer("album", "--skip-existing", "--json")
    document = json.loads(done.out)
    assert document["skipped"] == [names[0], names[4]]
    assert [file["input"] for file in document["files"]] == names[1:4]
    changed = {name for name, when in files().items() if before.get(name) != when}
    assert changed == {f"out/{x}/{stem}.wav" for x in "bcd" for stem in ("vocals", "instrumental")}
    again = bsm_infer("album", "--skip-existing")
    assert (again.code, again.out) == (0, "")
    assert again.err == "Skipped 5 songs, already separated.\n"


def test_what_a_run_that_was_killed_at_its_end_left_is_removed_by_one_that_skips(
    bsm_infer: Command, monkeypatch: pytest.MonkeyPatch
):
    bsm_infer(song("song.wav"))
    for folder in ("out", "out/song"):
        Path(folder, ".partial-abcdefgh").mkdir()
    monkeypatch.setattr(atomic, "_swept", set())  # as in a process of its own
    bsm_infer("song.wav", "--skip-existing")
    assert not list(Path().rglob(".partial-*"))


def test_a_part_is_not_taken_for_the_whole(bsm_infer: Command):
    song("song.wav")
    bsm_infer("song.wav", "--duration", "0.5")
    assert bsm_infer("song.wav", "--duration", "0.5", "--skip-existing").out == ""
    bsm_infer("song.wav", "--skip-existing")
    assert load("out/song/vocals.wav").shape == (2, RATE)


def test_a_song_whose_stems_cannot_have_their_names_fails_alone(bsm_infer: Command):
    song("album/a.wav")
    song(f"album/{'x' * 246}.wav")
    done = bsm_infer("album", "-o", "{track}.{stem}.wav", "--stems", "vocals", "--skip-existing")
    assert (done.code, done.out) == (1, "a.vocals.wav\n")
    assert re.search(r"^Failed: .*x\.vocals\.wav: File name too long\.$", done.err, re.MULTILINE)


# --- what would be done ---


def test_a_dry_run_tells_all_and_does_nothing(bsm_infer: Command):
    song("album/a.wav", 2 * RATE)
    save(Path("album/b.flac"), noise(RATE, 1))
    Path("album/text.wav").write_text("no music")
    bsm_infer("album/b.flac")
    before = files()
    done = bsm_infer("album", "--dry-run", "--picture", "--stems", "vocals", "--start", "0.5")
    assert done.code == 1
    assert done.out.splitlines() == [
        "album/a.wav  0:01.5  44100 Hz stereo",
        "  -> out/a/vocals.wav",
        "  -> out/a/spectrograms.png",
        "album/b.flac  0:00.5  44100 Hz mono  (1 file exists and would be replaced)",
        "  -> out/b/vocals.wav",
        "  -> out/b/spectrograms.png",
    ]
    assert "2 songs to separate, 0:02.0 of audio. Nothing was written." in done.err
    assert "album/text.wav is not audio" in done.err.splitlines()[-1]
    document = json.loads(bsm_infer("album", "--dry-run", "--json").out)
    assert [(s["input"], s["duration_s"], s["there"]) for s in document["jobs"]] == [
        ("album/a.wav", 2, False), ("album/b.flac", 1, True)
    ]  # fmt: skip
    assert files() == before


def test_a_dry_run_prints_no_control_characters(bsm_infer: Command):
    song("album/\x1b[31mred\n.wav")
    done = bsm_infer("album", "--dry-run", "--stems", "Vocals")
    assert done.out.splitlines() == [
        "album/?[31mred?.wav  0:01.0  44100 Hz stereo", "  -> out/_[31mred_/vocals.wav"
    ]  # fmt: skip


def test_a_broken_link_to_a_song_fails(bsm_infer: Command):
    song("album/a.wav", 1000)
    Path("album/b.wav").symlink_to("nowhere.wav")
    for arguments in (("--dry-run",), ()):
        done = bsm_infer("album", *arguments)
        assert done.code == 1
        assert "Failed: No such file: album/b.wav" in done.err


@pytest.mark.parametrize("skip", [(), ("--skip-existing",)])
def test_a_dry_run_announces_what_the_run_then_does(bsm_infer: Command, skip: tuple[str, ...]):
    for letter in "abc":
        song(f"album/{letter}.wav")
    bsm_infer("album/a.wav", "album/b.wav")
    Path("out/b/vocals.wav").unlink()
    planned = bsm_infer("album", "--dry-run", *skip)
    done = bsm_infer("album", *skip)
    lines = planned.out.splitlines()
    assert [line[5:] for line in lines if line.startswith("  -> ")] == done.out.split()
    notes = [line.partition("stereo")[2].strip() for line in lines if "stereo" in line]
    if skip:
        first = "(already separated)"
        assert planned.err.startswith("2 songs to separate, 0:02.0 of audio; 1 already separated. ")
        assert "Skipped 1 song, already separated." in done.err
    else:
        first = "(2 files exist and would be replaced)"
        assert planned.err.startswith("3 songs to separate, 0:03.0 of audio. ")
    assert notes == [first, "(1 file exists and would be replaced)", ""]


def test_a_dry_run_loads_no_engine(tmp_path: Path, quick_onnx: Path):
    save(tmp_path / "song.wav", noise(1000))
    script = "import sys; from bsmamba2.cli import main\ntry: main(sys.argv[1:])\n"
    script += "finally: assert 'onnxruntime' not in sys.modules"
    options = ("--dry-run", "--engine", quick_onnx)
    printed(script, "infer", "song.wav", *options, folder=tmp_path)


# --- what is written ---


def test_a_picture_lies_beside_the_stems(bsm_infer: Command):
    done = bsm_infer(song("song.wav"), "--picture", "--stems", "vocals", "-o", "{track}.wav",
                     "--skip-existing", "-o", "x/{track}.flac")  # fmt: skip
    assert done.out.split() == ["x/song.flac", "x/song.spectrograms.png"]
    picture = Path("x/song.spectrograms.png")
    assert b"mixture, vocals, instrumental" in picture.read_bytes()
    picture.unlink()
    again = bsm_infer("song.wav", "--picture", "--stems", "vocals", "-o", "x/{track}.flac",
                      "--skip-existing")  # fmt: skip
    assert again.out == done.out


@pytest.mark.parametrize(("out", "folder"), [
    ("out2", "out2"), ("out2/", "out2"), (".", ""), ("..", ".."), ("a b/out2//", "a b/out2"),
    ("stems.v2/", "stems.v2"), ("there.v2", "there.v2"),
])  # fmt: skip
def test_a_name_without_fields_is_a_folder_if_it_looks_like_one_or_is_one(
    bsm_infer: Command, out: str, folder: str
):
    Path("there.v2").mkdir()
    song("album/disc/a.wav", 1000)
    done = bsm_infer("album", "-r", "--stems", "vocals", "--format", "flac", "-o", out)
    assert done.out.splitlines() == [str(Path(folder, "disc/a/vocals.flac"))], done.err
    assert Path(folder, "disc/a/vocals.flac").is_file()


def test_a_folder_of_results_is_not_searched(bsm_infer: Command):
    song("a.wav", 1000)
    first = bsm_infer(".", "-r", "-o", "out2")
    assert bsm_infer(".", "-r", "-o", "out2").out == first.out


# --- pipes ---


Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def shell(quick_onnx: Path, tmp_path: Path) -> Shell:
    """Runs a line of a shell in which `bsm` is `bsm infer`; nothing temporary is left."""

    def run(line: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        (tmp_path / "tmp").mkdir()
        bsm = f'{sys.executable} -c "{MAIN}" infer --engine {quick_onnx} --threads 2'
        done = subprocess.run(
            ["bash", "-c", f"bsm() {{ {bsm} \"$@\"; }}\n{line}"],
            cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
            input=given, capture_output=True,
        )  # fmt: skip
        (tmp_path / "tmp").rmdir()
        return done

    return run


def test_a_song_through_pipes_is_the_song_in_files(
    shell: Shell, tmp_path: Path, bsm_infer: Command
):
    save(tmp_path / "song.mp3", noise(RATE))
    (expected,) = bsm_infer("song.mp3", "--stems", "vocals").out.split()
    done = shell("cat song.mp3 | bsm - --stems vocals -o -")
    assert done.returncode == 0, done.stderr
    assert b"1 file" in done.stderr
    with soundfile.SoundFile(io.BytesIO(done.stdout)) as stem:
        assert (stem.samplerate, stem.channels, stem.frames) == (RATE, 2, RATE)  # by its header
        assert np.array_equal(stem.read(dtype="float32").T, load(expected))
    done = shell("cat song.mp3 | bsm - --stems vocals -o '{track}-{stem}.ogg'")
    assert done.stdout.split() == [b"stdin-vocals.ogg"]


@pytest.mark.parametrize("given", [b"", b"no music at all"])
def test_rubbish_from_stdin_is_one_sentence_and_nothing_on_stdout(
    shell: Shell, given: bytes, tmp_path: Path
):
    done = shell("bsm - --stems vocals -o -", given)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().splitlines()[-1].startswith("Failed: stdin ")
    assert str(tmp_path).encode() not in done.stderr


@pytest.mark.parametrize(("arguments", "words"), [
    (["song.wav", "-o", "-"], "one stem of one song"),
    (["song.wav", "other.wav", "--stems", "vocals", "-o", "-"], "one stem of one song"),
    (["song.wav", "--stems", "vocals", "-o", "-", "--json"], "either the stem or the JSON"),
    (["song.wav", "--stems", "vocals", "-o", "-", "--picture"], "no picture"),
])  # fmt: skip
def test_what_stdout_cannot_take_is_refused(bsm_infer: Command, arguments: list[str], words: str):
    song("song.wav")
    done = bsm_infer(*arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


@pytest.mark.parametrize(("line", "words"), [
    ("bsm song.wav -q --stems vocals -o - | true; exit ${PIPESTATUS[0]}",
     b"Failed: song.wav: Cannot write to stdout: Broken pipe; "),
    ("bsm - <&-", b"stdin is closed: "),
    ("bsm song.wav -o - >&-", b"stdout is closed: "),
])  # fmt: skip
def test_streams_that_are_not_there_are_one_sentence(
    shell: Shell, tmp_path: Path, line: str, words: bytes
):
    save(tmp_path / "song.wav", noise(RATE))
    done = shell(line)
    assert done.returncode == (2 if b"closed" in words else 1)
    assert words in done.stderr.splitlines()[-1]


def test_terminals_get_and_give_no_samples(bsm_infer: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    done = bsm_infer(song("song.wav"), "--stems", "vocals", "-o", "-")
    assert "stdout is a terminal" in done.err
    assert "stdin is a terminal" in bsm_infer("-").err
    assert set(files()) == {"song.wav"}
