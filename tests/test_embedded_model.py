"""The embedded model is small, has metadata, and separates, as the README says."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import bsm
from songs import decoded, excerpt

from bsmamba2.cli.info_record import inspect_file
from bsmamba2.evaluation.metrics import usdr
from bsmamba2.runtime import EngineOptions, Separator, load_engine


def test_file_is_at_most_8_mb_and_says_what_it_is() -> None:
    record = inspect_file("default")
    assert record["size_bytes"] <= 8_000_000
    assert record["provenance"]["trained"]
    assert record["card"]["licence"] == "MIT"
    assert len(record["card"]["scores"]) >= 3
    assert "practice songs" in record["card"]["training_data"]
    assert "demonstration" in record["card"]["limits"]


@pytest.mark.parametrize("overlap_s", [0.0, 1.0])
def test_vocals_of_real_music_are_separated(overlap_s: float) -> None:
    song = excerpt()
    mixture, vocals = decoded(song).T, decoded(song, stream=4).T
    stems = Separator(
        load_engine(options=EngineOptions(device="cpu")), overlap_s=overlap_s
    ).separate(mixture, 44_100)
    assert usdr(vocals, stems["vocals"]) > usdr(vocals, mixture) + 4


def test_infer_says_that_the_model_is_a_demonstration(tmp_path: Path) -> None:
    command = ("infer", excerpt(), "-o", tmp_path / "{stem}.wav")
    said = bsm(*command).err
    notes = [line for line in said.splitlines() if "demonstration" in line]
    assert len(notes) == 1
    assert "--engine" in notes[0]
    assert bsm(*command, "--quiet").err == ""
