"""Names of the files that `bsm infer` writes: no two songs share one, and advice is good."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from audio_files import RATE, noise, save
from processes import Command, Outcome

from bsmamba2.runtime.songs.jobs import make_jobs
from bsmamba2.runtime.songs.output_template import OutputTemplate
from bsmamba2.runtime.songs.sources import Source


def song(name: str, n: int = 500, rate: int = RATE) -> str:
    """Stereo noise, in 16 bits."""
    return str(save(Path(name), noise(n), rate, subtype="PCM_16"))


def failures(done: Outcome) -> list[str]:
    return [line for line in done.err.splitlines() if line.startswith("Failed: ")]


def files() -> set[str]:
    return {path.as_posix() for path in Path().rglob("*") if path.is_file()}


def assert_separated(done: Outcome, count: int) -> None:
    """Every song has files of its own."""
    assert done.code == 0, done.err
    assert len(set(done.out.splitlines())) == count
    assert set(done.out.splitlines()) <= files()


# --- songs of one name ---


@pytest.mark.parametrize(("songs", "arguments", "mend"), [
    ("a/x.flac a/x.wav", "a", "out/{folder}/{track}.{trackext}/{stem}.{ext}"),
    ("a/x.flac a/x.wav", "a/x.wav a/x.flac", "out/{folder}/{track}.{trackext}/{stem}.{ext}"),
    ("a/x.flac a/x.wav", "a -o 'my stems/'", "my stems/{folder}/{track}.{trackext}/{stem}.{ext}"),
    ("a/x.flac a/x.wav", "a -o {track}.{stem}.ogg", "{track}.{trackext}.{stem}.ogg"),
    ("a/x.wav a/y.wav", "a -o {stem}.wav", "{track}/{stem}.wav"),
    ("a/x.wav a/y.wav", 'a --stems vocals -o "it\'s/voice.wav"', "it's/{track}/voice.wav"),
    ("a/b/x.wav a/c/x.wav", "a -r -o v/{track}.{stem}.{ext}", "v/{folder}/{track}.{stem}.{ext}"),
    ("a/b/x.wav a/c/x.wav a/c/x.flac", "a -r -o {track}/{stem}.wav --picture",
     "{folder}/{track}.{trackext}/{stem}.wav"),
    ("a/b/x.wav a/c/x.flac", "a -r -o {stem}.wav", "{folder}/{track}/{stem}.wav"),
])  # fmt: skip
def test_songs_of_one_name_are_told_apart_by_the_template_that_the_refusal_spells(
    bsm_infer: Command, songs: str, arguments: str, mend: str
):
    for name in songs.split():
        song(name)
    given = shlex.split(arguments)
    refused = bsm_infer(*given)
    assert (refused.code, refused.out, files()) == (1, "", set(songs.split()))
    (sentence,) = failures(refused)
    advice = re.search(r": tell them apart with (-o .*)\.$", sentence)
    assert advice, sentence
    followed = shlex.split(advice[1])
    assert followed == ["-o", mend]
    stems = 1 if "--stems" in given else 3 if "--picture" in given else 2
    assert_separated(bsm_infer(*given, *followed), stems * len(songs.split()))


@pytest.mark.parametrize("names", [("a/x.wav", "b/x.wav"), ("a/x\ny.wav", "a/x_y.wav")])
def test_songs_that_no_template_tells_apart_are_renamed_or_have_runs_of_their_own(
    bsm_infer: Command, names: tuple[str, ...]
):
    for name in names:
        song(f"{Path(name).parent}/song.wav")
        Path(name).with_name("song.wav").rename(name)
    refused = bsm_infer(*names)
    (sentence,) = failures(refused)
    assert sentence.endswith("rename one of them, or give each a run with its own --out.")
    runs = [bsm_infer(name, "-o", f"run{i}") for i, name in enumerate(names)]
    assert len({line for done in runs for line in done.out.splitlines()}) == 4
    Path(names[0]).rename("a/z.wav")
    assert_separated(bsm_infer("a/z.wav", names[1]), 4)


def test_an_input_is_kept_by_another_name_of_the_output(bsm_infer: Command):
    arguments = song("a/x.wav"), "--stems", "vocals", "-o"
    refused = bsm_infer(*arguments, "a/{track}.wav")
    assert failures(refused)[0].endswith("would overwrite the input a/x.wav: choose another --out.")
    assert_separated(bsm_infer(*arguments, "b/{track}.wav"), 1)


def test_a_song_without_a_suffix_has_a_name_in_place_of_it(bsm_infer: Command):
    Path(song("song.wav")).rename("song")
    done = bsm_infer("song", "-o", "{trackext}/{track}.{trackext}.{stem}.wav", "--stems", "vocals")
    assert done.out == "_/song._.vocals.wav\n"


@pytest.mark.parametrize(("system", "failed"), [("linux", 0), ("darwin", 2)])
@pytest.mark.parametrize("names", [("Song", "song"), ("caf\u00e9", "cafe\u0301")])
def test_songs_whose_files_would_be_one_on_a_mac_are_refused_there(
    names: tuple[str, str], system: str, failed: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.platform", system)
    sources = [Source(Path(f"{name}.wav"), name) for name in names]
    jobs, failures = make_jobs(sources, [], OutputTemplate("out/{track}.{ext}"), ["vocals"], "wav")
    assert (len(jobs), len(failures)) == (2 - failed, failed)


# --- what cannot be written ---


LONG = "y" * 245


@pytest.mark.parametrize(("name", "arguments", "reason"), [
    (f"{LONG}.wav", "-o new/er/{track}.{stem}.wav", "vocals.wav: File name too long."),
    (f"{LONG}.wav", "-o v/{track}.wav --stems vocals --picture", ".png: File name too long."),
    ("a.wav", f"-o {'/'.join(['z' * 200] * 21)}", "File name too long."),
    ("a.wav", "-o a.wav/{stem}.wav", "Cannot write into a.wav: Not a directory."),
    ("a.wav", "-o taken/{stem}.wav", "vocals.wav: a folder has that name; choose another."),
    ("a.wav", "--format mp3", "mp3 cannot have a sample rate of 96000 Hz: write .wav files."),
    ("empty.wav", "", "empty.wav holds no samples: record or export it again."),
])  # fmt: skip
def test_a_dry_run_refuses_what_the_run_refuses_in_the_same_words(
    bsm_infer: Command, name: str, arguments: str, reason: str
):
    Path("taken/vocals.wav").mkdir(parents=True)
    song(name, 0 if name == "empty.wav" else 500, rate=96_000)
    for dry in (["--dry-run"], []):
        done = bsm_infer(name, *arguments.split(), *dry)
        (sentence,) = failures(done)
        assert (done.code, done.out) == (1, "")
        assert sentence.endswith(reason)
        assert files() == {name}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_dry_run_refuses_a_folder_that_cannot_be_written(bsm_infer: Command):
    Path("closed").mkdir(mode=0o500)
    sentences = [failures(bsm_infer(song("a.wav"), "-o", "closed", *dry))
                 for dry in ([], ["--dry-run"])]  # fmt: skip
    assert sentences[0] == sentences[1]
    assert sentences[0][0].endswith("Cannot write into closed: Permission denied.")


def test_a_dry_run_skips_a_complete_song_whatever_its_folder(bsm_infer: Command):
    """Only what would be written is looked at."""
    bsm_infer(song("a.wav"))
    Path("out/a").chmod(0o500)
    done = bsm_infer("a.wav", "--dry-run", "--skip-existing")
    Path("out/a").chmod(0o700)
    assert (done.code, failures(done)) == (0, [])


def test_a_name_as_long_as_the_file_system_takes_is_written(bsm_infer: Command):
    """Temporary names do not shorten it."""
    options = ["-o", "new/{track}.{stem}.wav", "--stems", "vocals", "--clip", "rescale"]
    done = bsm_infer(song(f"{LONG[:244]}.wav"), *options)
    assert len(Path(done.out.strip()).name) == 255
    assert_separated(done, 1)
