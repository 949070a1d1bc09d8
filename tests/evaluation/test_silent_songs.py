"""Songs of which a stem is silent: no SDR fits them, and they change no mean."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from known_results import evaluation, minute, result
from small_engines import random_mask
from voiced_songs import RATE, STEMS, model_of, tracks_of, voice, write_song, write_stems

from bsmamba2.data.tracks import FoundTracks
from bsmamba2.evaluation.evaluate import (
    Settings,
    evaluate,
    find_extreme_minutes,
    picture_extremes,
)
from bsmamba2.evaluation.metrics import EnergyMeter
from bsmamba2.evaluation.onsets import are_silent, is_silent
from bsmamba2.evaluation.report import render_report
from bsmamba2.evaluation.results import ResultStore
from bsmamba2.evaluation.summary import Evaluation, summarise_stem, text_tables

VOICE = voice(1.2, [(0, 1.2)])
DITHER = voice(1.2, [(0, 1.2)], level=1e-5)
NOTHING = np.zeros_like(VOICE)


def write_song_of(root: Path, vocals: np.ndarray, rest: np.ndarray) -> None:
    """Writes the song 'quiet' with these vocals, and all else in its drums."""
    stems = dict.fromkeys(STEMS, NOTHING) | {"vocals": vocals, "drums": rest}
    write_stems(root / "test" / "quiet", stems | {"mixture": vocals + rest})


def measured(root: Path) -> Evaluation:
    """All measurements of a model that leaves noise in silence."""
    (results,), failures = evaluate(
        [model_of(random_mask(0.5))],
        tracks_of(root),
        Settings(lengths_s=[1, 2]),
        ResultStore(root / "results"),
    )
    assert not failures
    return Evaluation(
        data=root,
        split="test",
        songs=FoundTracks(tracks=tracks_of(root), left_out={}),
        overlap_s=0,
        models=[results],
        failures=[],
        by_onset=True,
    )


QUIET = {
    "no vocals": (NOTHING, VOICE, ["vocals"]),
    "vocals of dither": (DITHER, VOICE, ["vocals"]),
    "vocals only": (VOICE, NOTHING, ["instrumental"]),
    "no sound at all": (NOTHING, NOTHING, ["vocals", "instrumental"]),
}


@pytest.fixture(params=QUIET)
def quiet(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[str]]:
    """The folder of the song 'quiet', and its silent stems."""
    vocals, rest, silent = QUIET[request.param]
    write_song_of(tmp_path, vocals, rest)
    return tmp_path, silent


def assert_all_numbers_are_finite(found: Evaluation) -> None:
    """Asserts that no text of the evaluation names NaN or an infinity, and JSON has null."""
    pictures = picture_extremes(
        found.models, tracks_of(found.data), Settings(), ResultStore(found.data / "r")
    )
    json.dumps(found.document(), allow_nan=False)
    for text in (text_tables(found), render_report(found, pictures)):
        text = re.sub(r"base64,[^\"]*|isNaN|<style>.*?</style>", "", text, flags=re.DOTALL)
        assert not re.search(r"\b(nan|inf(inity)?)\b", text, re.IGNORECASE)


def test_a_silent_stem_is_flagged_and_has_no_number(quiet: tuple[Path, list[str]]):
    root, silent = quiet
    found = measured(root)
    (track,) = found.models[0].tracks
    assert track.silent_stems == silent
    for stem in silent:
        assert found.document()["models"][0]["tracks"][0]["stems"][stem]["usdr"] is None
        assert f"1 of 1 track has no {stem} (below -60 dBFS in every second)" in text_tables(found)
        assert f"1 of 1 track has no {stem}" in render_report(found, [])
    for stem in set(track.stems) - set(silent):  # the mixture is this stem: nothing to separate
        assert math.isfinite(track.stems[stem].usdr)
        assert math.isnan(track.stems[stem].mixture_usdr)
    assert "silent" in text_tables(found).splitlines()[4]
    assert_all_numbers_are_finite(found)


def test_a_silent_song_changes_no_mean(quiet: tuple[Path, list[str]]):
    root, silent = quiet
    alone = write_song(root / "alone", "sung", VOICE)
    assert write_song(root, "sung", VOICE).keys() == alone.keys()
    found, expected = measured(root), measured(root / "alone")
    for results, others in (
        (found.models[0].tracks, expected.models[0].tracks),
        (found.models[0].by_length[2], expected.models[0].by_length[2]),
    ):
        assert [track.track for track in results] == ["quiet", "sung"]
        for stem in ("vocals", "instrumental"):
            summary, other = (summarise_stem(tracks, stem) for tracks in (results, others))
            assert summary.silent_tracks == (stem in silent)
            assert (summary.tracks, summary.usdr, summary.csdr) == (1, other.usdr, other.csdr)
            assert (summary.usdr_gain, summary.mixture_usdr) == (
                other.usdr_gain,
                other.mixture_usdr,
            )
    assert f"1 of 2 tracks has no {silent[0]}" in text_tables(found)
    assert_all_numbers_are_finite(found)


def test_what_is_left_in_silence_is_still_measured(tmp_path: Path):
    write_song_of(tmp_path, NOTHING, VOICE)
    (track,) = measured(tmp_path).models[0].tracks
    assert track.leakage.silent_s == 1
    assert track.leakage.mixture_dbfs == pytest.approx(-20, abs=0.1)


def test_a_minute_without_vocals_is_neither_the_best_nor_the_worst():
    silent, sung = minute(0, 60, math.nan, 0), minute(60, 60, 5, 4)
    assert find_extreme_minutes([result(minutes=(silent,))]) == []
    ((_, found),) = find_extreme_minutes([result(minutes=(silent, sung))])
    assert found is sung


@pytest.mark.parametrize(("level", "bursts", "expected"), [
    (0.1, [], True), (0.1, [(1, 1.1)], False), (0.1, [(2.05, 2.1)], False),
    (1e-4, [(0, 2.1)], True), (1.1e-3, [(0, 2.1)], False), (0.9e-3, [(0, 2.1)], True),
])  # fmt: skip
def test_silent_is_below_the_floor_in_every_second_even_the_last_incomplete_one(
    level: float, bursts: list[tuple[float, float]], expected: bool
):
    samples = voice(2.1, bursts, level).T
    meter = EnergyMeter(RATE)
    meter.add(samples, samples)
    energies = meter.finish()
    assert is_silent(samples, RATE) is expected
    assert are_silent(energies.signal, energies.samples) is expected


def test_a_perfect_estimate_is_called_so():
    found = evaluation([result(usdr=100, csdr=math.inf), result("b", csdr=math.inf)])
    assert "perfect (-1.00)" in text_tables(found)
    assert "cSDR - over the mixture" in text_tables(found)
    page = render_report(found, [])
    assert '<td data-value="1000.0">perfect</td>' in page
    assert "inf" not in page.replace("infer", "")
