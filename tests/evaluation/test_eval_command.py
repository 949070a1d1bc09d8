"""`bsm eval` with real engines: what it prints, writes and refuses, and that results are reused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from processes import Command, Outcome, printed
from voiced_songs import plain_usdr, voice, write_song, write_stems

from bsmamba2.cli import main


@pytest.fixture
def bsm_eval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs the command in its own folder, with two songs in `music`."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(["Anna - <First>", "Ben & Co - Second"]):
        write_song(Path("music"), name, voice(1.9, [(0, 0.7 + seed)]), seed=seed)

    def run(*arguments: Any, data: str = "music") -> Outcome:
        with pytest.raises(SystemExit) as exit:
            main(["eval", *map(str, arguments), "--data", data, "--threads", "1"])
        return Outcome(int(exit.value.code or 0), *capsys.readouterr())

    return run


def test_the_table_names_every_track(bsm_eval: Command, short_onnx: Path):
    done = bsm_eval(short_onnx, "--by-length", "1,2", "--by-onset")
    assert done.code == 0
    assert all(name in done.out for name in ("Anna - <First>", "Ben & Co - Second"))
    assert "1 s" in done.out
    assert "0.5 to 1 s" in done.out
    assert "untrained" in done.err


def test_json_is_one_document_with_true_figures(bsm_eval: Command, short_onnx: Path):
    song = write_song(Path("other"), "song", voice(1.2, [(0, 1)]))
    done = bsm_eval(short_onnx, "--json", "--overlap", "0.5", data="other")
    (model,) = json.loads(done.out)["models"]
    vocals = model["stems"]["vocals"]
    assert vocals["mixture_usdr"] == pytest.approx(plain_usdr(song["vocals"], song["mixture"]))
    assert model["tracks"][0]["stems"]["vocals"] == {
        name: vocals[name] for name in model["tracks"][0]["stems"]["vocals"]
    }
    assert model["tracks"][0]["overlap_s"] == 0.5


def test_two_kinds_of_engine_in_one_report(
    bsm_eval: Command, short_onnx: Path, tiny_checkpoint: Path
):
    name = os.fsdecode(b"A & <B> \xe9".ljust(255, b"x"))  # as long as names can be, and no UTF-8
    write_song(Path("other"), name, voice(1.2, [(0, 1)]))
    options = ["--against", short_onnx, "--report", "report.html", "--json"]
    done = bsm_eval(tiny_checkpoint, *options, data="other")
    assert done.code == 0
    models = json.loads(done.out)["models"]
    assert [model["engine"]["backend"] for model in models] == ["pytorch", "onnxruntime"]
    text = Path("report.html").read_text("utf-8")
    assert "A &amp; &lt;B&gt; \\udce9xxx" in text
    assert tiny_checkpoint.name in text
    assert short_onnx.name in text


def test_an_onnx_engine_is_evaluated_without_torch(bsm_eval: Command, short_onnx: Path):
    code = (
        "import sys; sys.modules['torch'] = None; from bsmamba2.cli import main; main(sys.argv[1:])"
    )
    arguments = [str(short_onnx), "--data", "music", "--report", "r.html", "--by-onset"]
    printed(code, "eval", *arguments)
    assert Path("r.html").stat().st_size > 50_000


def test_a_failing_track_is_listed_and_the_others_are_done(bsm_eval: Command, short_onnx: Path):
    broken = Path("music/test/Anna - <First>/mixture.wav")
    broken.write_bytes(b"no audio")
    done = bsm_eval(short_onnx, "--report", "report.html")
    assert done.code == 1
    assert "Ben & Co" in done.out
    failed, report = done.err.splitlines()[-2:]
    assert failed.startswith(f"Failed: {short_onnx}: Anna - <First>: {broken}")
    assert report == "Report: report.html"
    assert "Failed: 1" in Path("report.html").read_text("utf-8")


def test_a_broken_file_is_listed_once_for_all_models_and_lengths(
    bsm_eval: Command, short_onnx: Path
):
    Path("music/test/Anna - <First>/vocals.wav").unlink()
    done = bsm_eval(short_onnx, "--by-length", "2", "--json")
    assert len(json.loads(done.out)["failed"]) == 2
    assert done.err.count("Failed: ") == 1


def test_where_all_tracks_fail_there_is_no_report(bsm_eval: Command, short_onnx: Path):
    for path in Path("music/test").glob("*/vocals.wav"):
        path.unlink()
    done = bsm_eval(short_onnx, "--report", "report.html", "--json")
    assert done.code == 1
    assert len(json.loads(done.out)["failed"]) == 2
    assert not Path("report.html").exists()


def test_named_stems_are_the_references(bsm_eval: Command, short_onnx: Path):
    vocals, rest = (voice(1.2, [(0, 1.2)], level) for level in (0.1, 0.2))
    write_stems(Path("other/test/song"), {"vocals": vocals, "backing": rest, "bass": rest})
    done = bsm_eval(short_onnx, "--json", "--stems", "backing, vocals,Backing", data="other")
    (model,) = json.loads(done.out)["models"]
    assert model["stems"]["vocals"]["mixture_usdr"] == pytest.approx(
        plain_usdr(vocals, vocals + rest), abs=1e-4
    )
    assert bsm_eval(short_onnx, data="other").code == 1


@pytest.mark.parametrize(("arguments", "sentence", "code"), [
    (["--stems", "vocals,"], "without the mixture", 2),
    (["--stems", "vocals,Mixture"], "without the mixture", 2),
    (["--stems", "drums,bass"], "estimates 'vocals', but --stems names drums, bass", 2),
    (["--by-length", "0"], "whole seconds", 2),
    (["--by-length", "1,two"], "whole seconds", 2),
    (["--by-length", "1,9999"], "up to 600", 2),
    (["--overlap", "1"], "does not fit", 2),
    (["--against", "ENGINE/../tiny.onnx"], "named twice", 2),
    (["--against", "music"], "is a folder", 1),
    (["--against", "missing.onnx"], "No such file", 1),
    (["--out", "ENGINE/below"], "--out", 1),
    (["--report", "music"], "is a folder", 1),
    (["--split", "valid"], "music", 1),
])  # fmt: skip
def test_bad_arguments_are_one_sentence(
    bsm_eval: Command, short_onnx: Path, arguments: list[str], sentence: str, code: int
):
    filled = [argument.replace("ENGINE", str(short_onnx)) for argument in arguments]
    done = bsm_eval(short_onnx, *filled)
    assert done.code == code
    assert sentence in done.err
    assert "Traceback" not in done.err
    assert not done.out
