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
    with pytest.raises(DataError, match=r"a/keys\.wav is missing: add what --stems names"):
        chosen(MUSDB, named=["vocals", "keys"])
    with pytest.raises(DataError, match=r"mixture\.wav is missing: add what --stems names"):
        chosen("vocals other", named=["vocals"])


@pytest.mark.parametrize(("names", "sentence"), [
    ("mixture vocals drums other", "bass.wav is missing: a song with drums needs vocals, drums, "
     "bass and other, or vocals and instrumental; otherwise name its stems with --stems."),
    ("mixture vocals bass", "drums.wav is missing, and so is other: a song with bass needs"),
    ("mixture drums bass other", "vocals.wav is missing"),
    ("vocals", "mixture.wav is missing: a song needs vocals and one of mixture, instrumental, "
     "accompaniment and other; otherwise name its stems with --stems."),
    ("vocals guitar", "mixture.wav is missing: a song needs vocals and"),
    ("mixture instrumental", "vocals.wav is missing: a song needs vocals and"),
])  # fmt: skip
def test_a_song_without_enough_says_what_is_missing_and_what_would_do(names: str, sentence: str):
    with pytest.raises(DataError) as error:
        chosen(names)
    assert str(error.value).startswith(f"songs/test/a/{sentence}")


def test_other_is_the_rest_only_where_no_other_stem_of_musdb_is():
    with pytest.raises(DataError, match=r"bass\.wav is missing"):
        chosen("vocals drums other")
    assert chosen("vocals drums instrumental") == "vocals instrumental"


def test_a_target_of_another_name_needs_its_file_and_the_rest():
    assert chosen("mixture guitar vocals other", target="guitar", named=["guitar"]) == (
        "mixture guitar"
    )
    with pytest.raises(DataError, match=r"guitar\.wav is missing"):
        chosen(MUSDB, target="guitar")


def test_two_files_of_one_name_are_refused():
    with pytest.raises(DataError, match="keep one file of vocals"):
        chosen("vocals.wav vocals.flac mixture")
