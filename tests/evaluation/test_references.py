"""Which files of a song are taken as references."""

from __future__ import annotations

from pathlib import Path

import pytest

from bsmamba2.data.tracks import Track
from bsmamba2.errors import DataError
from bsmamba2.evaluation.references import reference_files

MUSDB = "mixture vocals drums bass other"


def song(names: str) -> Track:
    folder = Path("songs/test/a")
    files = tuple(folder / (name if "." in name else f"{name}.wav") for name in names.split())
    return Track(name="a", folder=folder, files=files)


def chosen(names: str, **options: object) -> str:
    files = reference_files(song(names), **{"target": "vocals", **options})
    assert all(files[name].stem.lower() == name for name in files)
    return " ".join(files)


@pytest.mark.parametrize("rest", ["instrumental", "accompaniment", "other"])
def test_vocals_and_one_file_of_everything_else_are_enough(rest: str):
    assert chosen(f"mixture vocals {rest}") == f"mixture vocals {rest}"
    assert chosen(f"vocals {rest}") == f"vocals {rest}"
    assert chosen(f"MIXTURE.flac {rest}.mp3 Vocals.WAV") == f"mixture vocals {rest}"


def test_vocals_and_a_mixture_are_enough():
    assert chosen("mixture vocals") == "mixture vocals"
    assert chosen("mixture vocals guitar") == "mixture vocals"


@pytest.mark.parametrize("more", ["", " instrumental", " accompaniment guitar"])
def test_musdbs_stems_come_before_fewer(more: str):
    assert chosen(MUSDB + more) == MUSDB
    assert chosen(MUSDB + more, target="bass") == MUSDB


def test_trained_stems_come_first_and_others_are_taken_where_they_are_missing():
    trained = ("vocals", "instrumental")
    assert chosen(f"{MUSDB} instrumental", trained=trained) == "mixture vocals instrumental"
    assert chosen(MUSDB, trained=trained) == MUSDB
    assert chosen("vocals instrumental", trained=MUSDB.split()[1:]) == "vocals instrumental"
    three = ("guitar", "keys", "other")
    assert chosen("guitar other keys", target="guitar", trained=three) == "guitar keys other"


def test_named_stems_are_taken_or_missed():
    assert chosen(MUSDB, named=["vocals", "other"]) == "mixture vocals other"
    assert chosen(MUSDB, named=["vocals"]) == "mixture vocals"
    with pytest.raises(DataError, match=r"no file called keys: add what --stems names"):
        chosen(MUSDB, named=["vocals", "keys"])
    with pytest.raises(DataError, match=r"no file called mixture: add what"):
        chosen("vocals other", named=["vocals"])


@pytest.mark.parametrize(("names", "missing"), [
    ("vocals", "mixture"), ("vocals guitar", "mixture"), ("mixture instrumental", "vocals"),
    ("vocals drums other", "mixture"), ("drums bass", "vocals or mixture"),
])  # fmt: skip
def test_a_song_without_enough_says_what_is_missing_and_what_would_do(names: str, missing: str):
    with pytest.raises(DataError) as error:
        chosen(names)
    assert str(error.value) == (
        f"songs/test/a has no file called {missing}: a song needs vocals, and mixture, "
        "instrumental or all other stems, which --stems can name."
    )


@pytest.mark.parametrize("trained", [("vocals", "other"), ("vocals", "drums", "bass")])
def test_parts_are_references_only_where_no_more_stems_of_musdb_are(trained: tuple[str, ...]):
    assert chosen(MUSDB, trained=trained) == MUSDB
    assert chosen("mixture vocals drums other", trained=trained) == "mixture vocals"
    assert chosen("vocals drums instrumental", trained=trained) == "vocals instrumental"
    assert chosen(" ".join(trained), trained=trained) == " ".join(trained)


def test_a_target_of_another_name_needs_its_file_and_the_rest():
    assert chosen("mixture guitar vocals other", target="guitar", named=["guitar"]) == (
        "mixture guitar"
    )
    with pytest.raises(DataError, match="no file called guitar:"):
        chosen(MUSDB, target="guitar")


def test_two_files_of_one_name_are_refused():
    with pytest.raises(DataError, match="keep one file of vocals"):
        chosen("vocals.wav vocals.flac mixture")
