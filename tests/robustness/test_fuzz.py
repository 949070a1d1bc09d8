"""A short run of the fuzzer, and tests that it notices what it looks for."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import fuzz
import numpy as np
import pytest
import soundfile
from fuzz_bytes import mutate_bytes, mutate_value
from fuzz_corpus import Case, Corpus, keep_corpus, make_corpus, open_corpus
from fuzz_worker import GOOD, MAKERS, judge, judge_song, make_case, run_one

from bsmamba2.cli import main

SEED, CASES = 20, 105


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    corpus = make_corpus(tmp_path_factory.mktemp("corpus"))
    keep_corpus(corpus)
    return corpus


@pytest.mark.slow
def test_hostile_files_end_in_success_or_one_sentence(corpus: Corpus, tmp_path: Path):
    results = list(fuzz.run_cases(tmp_path, corpus.folder, SEED, range(CASES)))
    wrong = [result for result in results if result["outcome"] not in GOOD]
    assert not wrong, f"python tests/robustness/fuzz.py --seed {SEED} --case {wrong[0]['case']}"
    assert len(results) == CASES
    assert {"success", "sentence"} <= {result["outcome"] for result in results}


def test_the_intact_files_separate(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Otherwise every case would fail, even without its damage."""
    monkeypatch.chdir(tmp_path)
    assert len(corpus.audio) > 20
    songs = [str(path) for path in sorted(corpus.folder.glob("song.*"))]
    for number, song in enumerate(songs):
        out = f"out/{number}/{{stem}}.wav"
        options = ["--overlap", "0.1", "--threads", "1", "--quiet"]
        with pytest.raises(SystemExit) as done:
            main(["infer", "--engine", str(corpus.onnx), "-o", out, *options, song])
        assert done.value.code == 0, song


def contents(folder: Path) -> dict[str, bytes]:
    paths = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths if p.is_file()}


@pytest.mark.parametrize("number", range(len(MAKERS)))
def test_a_case_is_a_function_of_seed_and_number(corpus: Corpus, tmp_path: Path, number: int):
    made = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        case = make_case(7, number, open_corpus(corpus.folder), tmp_path / name)
        made.append((case, contents(tmp_path / name)))
    assert made[0][0] == made[1][0]
    if "last.ckpt" not in str(made[0][1].keys()):  # torch.save writes an id of its own
        assert made[0][1] == made[1][1]


def differs(one: object, other: object) -> bool:
    try:
        return repr(one) != repr(other)
    except (RecursionError, ValueError):  # too deep, or too long a number
        return True


def test_mutations_are_seeded_and_change_something():
    data, value = bytes(range(256)) * 4, {"a": [1, {"b": "c"}], "d": 2.5}
    assert mutate_bytes(Random(1), data) == mutate_bytes(Random(1), data)
    changed = [mutate_bytes(Random(seed), data) != data for seed in range(200)]
    assert sum(changed) > 180
    assert sum(differs(mutate_value(Random(seed), value), value) for seed in range(40)) > 30
    assert value == {"a": [1, {"b": "c"}], "d": 2.5}


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "sentence"),
        ({"code": 2}, "sentence"),
        ({"code": 0, "errors": ""}, "success"),
        ({"code": 2, "errors": "Usage: bsm\n\nError: No such option.\n"}, "usage"),
        ({"code": 0}, "wrong code"),
        ({"errors": ""}, "no sentence"),
        ({"code": 3}, "no sentence"),
        ({"errors": "Error: no end\n"}, "no sentence"),
        ({"errors": f"Error: {'x' * 2000}.\n"}, "no sentence"),
        ({"errors": "Error: Unexpected KeyError: 'a'. Run it.\n"}, "unexpected"),
        ({"errors": "Failed: a: unexpected KeyError: 'a'; run it.\n"}, "unexpected"),
        ({"errors": "Traceback (most recent call last):\nKeyError: 'a'\n"}, "traceback"),
        ({"errors": "/a/b.py:70: RuntimeWarning: overflow\nError: No x: add it.\n"}, "noise"),
        ({"files": {"out/a/.partial-x.wav"}}, "half a file"),
        ({"forbidden": ["open /tmp/x"]}, "forbidden"),
        ({"arguments": ["parity", "a", "b"], "errors": "", "printed": "FAILED"}, "success"),
    ],
)
def test_judge_tells_right_from_wrong(changes: dict[str, object], outcome: str):
    usual = {"arguments": ["info", "x"], "code": 1, "printed": "", "errors": "Error: No x: add.\n"}
    assert judge(**{**usual, "files": set(), "forbidden": [], **changes})[0] == outcome


@pytest.mark.parametrize(
    ("seconds", "intact", "outcome", "errors", "judged"),
    [
        (1.0, True, "success", "", "success"),
        (1.2, False, "success", "Note: a\n", "success"),
        (2.0, True, "success", "", "wrong length"),
        (0.5, False, "success", "", "wrong length"),
        (None, False, "success", "", "success"),
        (1.0, True, "success", "Warning: Xing\n", "noise"),
        (1.0, True, "sentence", "Error: x.\n", "refused"),
        (2.0, False, "sentence", "Error: x.\n", "sentence"),
    ],
)
def test_stems_of_another_length_and_refused_songs_are_noticed(
    tmp_path: Path, seconds: float, intact: bool, outcome: str, errors: str, judged: str
):
    soundfile.write(tmp_path / "vocals.wav", np.zeros(8000), 8000)
    case = Case(kind="joined", arguments=[], seconds=seconds, intact=intact)
    assert judge_song(case, outcome, "", errors, tmp_path)[0] == judged


BAD = {  # what a command does -> what it is called; the last two end the process
    "{}['a']": "unexpected",
    "bytearray(1 << 34)": "memory",
    "open('in/x', 'w').close()": "forbidden",
    "import traceback\ntry: 1 / 0\nexcept Exception: traceback.print_exc(); raise": "traceback",
    "while True: pass": "hang",
    "import os; os.abort()": "crash",
}


def misbehave(seed: int, number: int, corpus: Path, *others: Any) -> None:
    """A case whose command runs a program of BAD."""
    import click
    import fuzz_worker

    import bsmamba2.cli

    def maker(random: Random, corpus: Corpus, folder: Path) -> Case:
        (folder / "in").mkdir()
        return Case(kind="bad", arguments=[list(BAD)[number]])

    command = click.Command("bad", callback=lambda: exec(list(BAD)[number], {}))
    bsmamba2.cli.cli.main = lambda *_, **__: command.main([], standalone_mode=False)
    fuzz_worker.MAKERS = (maker,)
    run_one(seed, number, corpus, *others)


@pytest.mark.slow
def test_what_is_looked_for_is_found(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Commands that misbehave are found, and after a hang the next case runs."""
    monkeypatch.setattr(fuzz, "CPU_S", 1)
    results = list(fuzz.run_cases(tmp_path, corpus.folder, 0, range(len(BAD)), misbehave))
    assert [result["outcome"] for result in results] == list(BAD.values())
