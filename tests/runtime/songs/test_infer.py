"""`bsm infer` with a real engine: output files, messages, and no leftovers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import audio_files
import numpy as np
import pytest
import soundfile
from audio_files import RATE, load, noise
from processes import TESTS, Command, printed
from songs import assert_null, decoded, excerpt


def save(name: str, samples: np.ndarray, rate: int = RATE, subtype: str = "FLOAT") -> str:
    audio_files.save(Path(name), samples, rate, subtype)
    return name


def files_below(folder: str | Path = ".") -> set[str]:
    return {path.as_posix() for path in Path(folder).rglob("*") if path.is_file()}


# --- what is written ---


@pytest.mark.parametrize(("rate", "channels", "n"),
                         [(44100, 2, 50_000), (48000, 1, 70_000), (22050, 2, 1)])  # fmt: skip
def test_stems_add_up_and_have_the_inputs_shape(
    bsm_infer: Command, rate: int, channels: int, n: int
):
    mixture = noise(n, channels)
    done = bsm_infer(save("song.wav", mixture, rate))
    assert done.code == 0
    assert done.out.split() == ["out/song/vocals.wav", "out/song/instrumental.wav"]
    stems = [load(name) for name in done.out.split()]
    assert {soundfile.info(name).samplerate for name in done.out.split()} == {rate}
    assert {soundfile.info(name).subtype for name in done.out.split()} == {"FLOAT"}
    assert {stem.shape for stem in stems} == {mixture.shape}
    assert_null(mixture, *stems)


def test_real_music_from_a_container_adds_up(bsm_infer: Command):
    song = excerpt()
    done = bsm_infer(str(song))
    assert done.code == 0
    vocals, rest = (load(name) for name in done.out.splitlines())
    mixture = decoded(song).T
    assert vocals.shape == rest.shape == mixture.shape == (2, 268_288)
    assert soundfile.info(done.out.splitlines()[0]).samplerate == 44100
    assert_null(mixture, vocals, rest)


@pytest.mark.parametrize(("arguments", "format", "subtype"), [
    (["--format", "flac"], "FLAC", "PCM_24"),
    (["--format", "flac", "--depth", "16"], "FLAC", "PCM_16"),
    (["--depth", "24"], "WAV", "PCM_24"),
    (["--format", "mp3"], "MP3", "MPEG_LAYER_III"),
    (["-o", "here/{stem}.ogg"], "OGG", "VORBIS"),
])  # fmt: skip
def test_formats_and_depths(bsm_infer: Command, arguments: list[str], format: str, subtype: str):
    done = bsm_infer(save("song.wav", noise(RATE)), *arguments)
    assert done.code == 0, done.err
    for name in done.out.split():
        info = soundfile.info(name)
        assert (info.format, info.subtype, info.frames) == (format, subtype, RATE)


def test_folders_are_separated_in_order_without_hidden_files(bsm_infer: Command):
    """Songs that are named twice are separated once; stems of an earlier run are replaced."""
    for name in ("b.wav", "a.flac", ".hidden.wav", "deeper/c.wav"):
        save(f"songs/{name}", noise(RATE), subtype="PCM_16")
    Path("songs/cover.jpg").touch()
    save("out/a/vocals.wav", noise(10))
    done = bsm_infer("songs", "songs/b.wav", "./songs/../songs/a.flac", "--stems", "vocals")
    assert done.out.split() == ["out/a/vocals.wav", "out/b/vocals.wav"]
    assert files_below("out") == set(done.out.split())
    assert load("out/a/vocals.wav").shape == (2, RATE)


@pytest.mark.parametrize("name", ["...wav", "a\\..\\b.wav", "new\nline.wav"])
def test_track_names_stay_in_their_folder_and_line(bsm_infer: Command, name: str):
    save("in/song.wav", noise(1000))
    Path("in/song.wav").rename(Path("in", name))
    done = bsm_infer(f"in/{name}", "--stems", "vocals")
    assert done.code == 0, done.err
    (written,) = done.out.splitlines()
    assert Path(written).resolve().parent.parent == Path("out").resolve()
    assert files_below("out") == {written}


# --- what is said ---


def test_json_is_one_document_on_stdout(bsm_infer: Command, quick_onnx: Path):
    save("song.wav", noise(22050, 1), 22050)
    Path("text.wav").write_text("no music")
    done = bsm_infer("song.wav", "text.wav", "--json")
    assert done.code == 1
    document = json.loads(done.out)
    assert document["engine"]["path"] == str(quick_onnx)
    (file,) = document["files"]
    assert file["input"] == "song.wav"
    assert file["outputs"] == {
        "vocals": "out/song/vocals.wav",
        "instrumental": "out/song/instrumental.wav",
    }
    assert (file["duration_s"], file["sample_rate"], file["channels"]) == (1.0, 22050, 1)
    assert list(file["stages_s"]) == ["decode", "stft", "engine", "istft", "encode"]
    share = file["stages_s"]["engine"] / file["elapsed_s"]
    assert file["engine_share"] == pytest.approx(share, abs=1e-2)
    assert 0 < document["run"]["engine_share"] <= file["engine_share"] < 1
    assert file["real_time_factor"] == pytest.approx(file["elapsed_s"], abs=1e-3)
    (failed,) = document["failed"]
    assert failed["input"] == "text.wav"
    assert "not audio" in failed["error"]


@pytest.mark.parametrize(("asked", "batch"), [("auto", 1), ("3", 3), ("0", None), ("many", None)])
def test_a_batch_is_what_was_asked_for_and_one_on_a_cpu(
    bsm_infer: Command, asked: str, batch: int | None
):
    done = bsm_infer(save("song.wav", noise(RATE)), "--json", "--batch", asked)
    if batch:
        assert json.loads(done.out)["run"]["batch"] == batch
    else:
        assert done.code == 2
        assert "--batch" in done.err


def test_songs_at_a_time_give_the_same_in_the_same_order(bsm_infer: Command):
    for name, seconds in (("a", 6), ("c", 1), ("d", 3), ("e", 2)):
        save(f"songs/{name}.wav", noise(seconds * RATE))
    Path("songs/b.wav").write_text("no music")
    Path("songs/f.wav").write_bytes(b"")
    runs = {}
    for jobs in ("1", "3"):
        done = bsm_infer("songs", "--jobs", jobs, "-o", f"{jobs}/{{track}}.{{stem}}.{{ext}}")
        assert done.code == 1
        # Only the samples are compared: a WAV of floats holds the time when it was written.
        files = {path.name: load(str(path)).tobytes() for path in Path(jobs).iterdir()}
        names = [Path(line).name for line in done.out.splitlines()]
        runs[jobs] = names, [line for line in done.err.splitlines() if "Failed" in line], files
    assert runs["3"] == runs["1"]
    assert runs["1"][0][::2] == [f"{name}.vocals.wav" for name in "acde"]
    assert set(runs["1"][0]) == set(runs["1"][2])


def test_untrained_weights_and_the_real_time_factor_are_said(bsm_infer: Command, tiny_onnx: Path):
    done = bsm_infer(save("song.wav", noise(RATE)), engine=tiny_onnx)
    warning, end = done.err.splitlines()
    assert "untrained" in warning
    assert "the stems are meaningless" in warning
    assert end.startswith("1 file, 1.0 s of audio")
    assert "real-time factor" in end
    again = bsm_infer("song.wav", "--quiet", "--json", engine=tiny_onnx)
    assert again.err == f"{warning}\n"
    assert json.loads(again.out)["engine"]["trained"] is False


# --- what is refused ---


@pytest.mark.parametrize("name", ["songs/a.wav", "songs"])
def test_an_input_is_never_overwritten(bsm_infer: Command, name: str):
    save("songs/a.wav", noise(RATE))
    before = Path("songs/a.wav").read_bytes()
    done = bsm_infer(name, "--stems", "vocals", "-o", "songs/../songs/{track}.wav")
    assert done.code == 1
    assert "overwrite the input" in done.err
    assert Path("songs/a.wav").read_bytes() == before


def test_inputs_of_one_output_are_refused_and_others_separated(bsm_infer: Command):
    for name in ("x/song.wav", "y/song.wav", "y/other.wav"):
        save(name, noise(RATE))
    done = bsm_infer("x/song.wav", "y", "--stems", "vocals", "--json")
    assert done.code == 1
    document = json.loads(done.out)
    assert [file["input"] for file in document["files"]] == ["y/other.wav"]
    assert [failed["input"] for failed in document["failed"]] == ["x/song.wav", "y/song.wav"]
    assert files_below("out") == {"out/other/vocals.wav"}


@pytest.mark.parametrize(("name", "sentence"), [
    ("gone.wav", "No such file or folder: gone.wav."),
    ("album/", "No such file or folder: album/."),
    ("https://example.org/a.wav", "https://example.org/a.wav is a URL: download the file first."),
])  # fmt: skip
def test_what_is_not_there_is_named_as_it_was_given(bsm_infer: Command, name: str, sentence: str):
    assert bsm_infer(name).err == f"Failed: {sentence}\n"


@pytest.mark.parametrize(("arguments", "words"), [
    (["-o", "{track}.wav"], "needs {stem}"),
    (["-o", "{track}/{name}.wav"], "unknown field"),
    (["-o", "{track.parent}/{stem}.wav"], "unknown field"),
    (["-o", "{track"], "cannot be read"),
    (["-o", ""], "must end in .{ext}"),
    (["-o", "song.aac"], "write -o 'song.aac/'."),
    (["-o", "x/{track}.{stem}"], "write -o 'x/{track}.{stem}.{ext}'."),
    (["-o", "x/{stem}.m4a"], "write -o 'x/{stem}.{ext}'."),
    (["-o", "out/{track}/{stem}"], "must end in .{ext} or one of .wav, .flac, .mp3, .ogg: write "
     "-o 'out/{track}/{stem}.{ext}'."),
    (["-o", "{stem}.wav", "--format", "flac"], "does not fit"),
    (["--stems", "Drums"], "vocals and instrumental"),
    (["--format", "ogg", "--depth", "16"], "cannot have depth"),
    (["--overlap", "2"], "An overlap of 2 s does not fit chunks of 2 s: choose at least 0 and "
     "less than 2 s."),
])  # fmt: skip
def test_wrong_options_are_one_sentence_and_no_work(
    bsm_infer: Command, arguments: list[str], words: str
):
    done = bsm_infer(save("song.wav", noise(RATE)), *arguments)
    assert done.code == 2
    assert words in done.err
    assert len(done.err.splitlines()) == 1
    assert files_below() == {"song.wav"}


def test_bad_inputs_fail_alone_leave_nothing_and_are_listed_last(bsm_infer: Command):
    save("one_sample.wav", noise(1))
    Path("text.wav").write_text("no music\n" * 100)
    content = Path(save("hole.flac", noise(4 * RATE), subtype="PCM_16")).read_bytes()
    middle = len(content) // 2
    Path("hole.flac").write_bytes(content[:middle] + bytes(3000) + content[middle + 3000 :])
    Path("empty_folder").mkdir()
    bad = {"missing.wav": "No such file", "empty_folder": "folder without audio",
           "text.wav": "not audio", "hole.flac": "damaged"}  # fmt: skip
    done = bsm_infer(*bad, "one_sample.wav")
    assert done.code == 1
    assert done.out.split() == ["out/one_sample/vocals.wav", "out/one_sample/instrumental.wav"]
    listed = done.err.splitlines()[-len(bad) :]
    for name, words in bad.items():
        (line,) = [line for line in listed if name in line]
        assert re.match(f"Failed: .*{words}", line)
    assert {str(path) for path in Path("out").iterdir()} == {"out/one_sample"}
    assert files_below("out") == set(done.out.split())


# --- what it costs ---


WITHOUT_TORCH = """
import sys
import bsmamba2.runtime, bsmamba2.cli, bsmamba2.cli.infer, bsmamba2.runtime.songs.separate_files
try:
    bsmamba2.cli.main(sys.argv[1:])
finally:
    heavy = {"torch", "cupy", "tensorrt", "onnx", "safetensors"} & set(sys.modules)
    assert not heavy, heavy
"""


@pytest.mark.parametrize("arguments", [[], ["song.wav"]])
def test_the_runtime_does_not_import_torch(tmp_path: Path, quick_onnx: Path, arguments: list[str]):
    save(str(tmp_path / "song.wav"), noise(RATE))
    if arguments:
        arguments = ["infer", *arguments, "--engine", str(quick_onnx)]
    printed(WITHOUT_TORCH, *(arguments or ["--help"]), folder=tmp_path)


PEAK = """
import sys
from pathlib import Path
import bsmamba2.runtime.engines
from bsmamba2.cli import main
sys.path.insert(0, sys.argv[1])
from small_engines import FunctionEngine, real_mask
bsmamba2.runtime.engines.load_engine = lambda *_, **__: FunctionEngine(real_mask(0.5), 8)
for song in ("short.wav", "long.wav"):
    try:
        main(["infer", song, *sys.argv[2:]])
    except SystemExit as end:
        assert not end.code
    status = Path("/proc/self/status").read_text().split()
    print("peak", int(status[status.index("VmHWM:") + 1]) // 1024)
"""


def sparse_wav(path: Path, frames: int) -> Path:
    """Stereo silence that takes a few KB of disk."""
    save(str(path), np.zeros((2, 1)), subtype="PCM_16")
    header = bytearray(path.read_bytes()[:-4])
    header[4:8] = (len(header) - 8 + 4 * frames).to_bytes(4, "little")
    header[-4:] = (4 * frames).to_bytes(4, "little")
    path.write_bytes(header)
    with path.open("r+b") as file:
        file.truncate(len(header) + 4 * frames)
    return path


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own figure")
def test_memory_does_not_grow_with_the_song(tmp_path: Path):
    """With an engine that is a function, for speed; `robustness/long_file.py` takes a real one."""
    frames = 20 * 60 * RATE
    sparse_wav(tmp_path / "short.wav", 2 * 60 * RATE)
    sparse_wav(tmp_path / "long.wav", frames)
    options = ("--threads", "2", "--format", "flac", "--quiet")
    lines = printed(PEAK, TESTS, *options, folder=tmp_path).splitlines()
    assert [soundfile.info(tmp_path / name).frames for name in lines[3:5]] == [frames, frames]
    before, after = (int(line.split()[1]) for line in (lines[2], lines[5]))
    assert after < 600
    # Threads' heaps go up and down by some 100 MB; 18 minutes of samples are 381 MB.
    assert after - before < 200, (before, after)


def test_failures_of_names_with_line_ends_are_one_line(bsm_infer: Command):
    outcome = bsm_infer("gone\nError: made up\x1b[2J.wav")
    assert "\x1b" not in outcome.err
    assert not re.search("^Error", outcome.err, re.MULTILINE)
    assert "gone?Error: made up?[2J.wav" in outcome.err
