"""Figures over all tracks, and the choice of minutes to show."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from known_results import NAN, evaluation, minute, region, result, songs

from bsmamba2.evaluation.evaluate import EvaluationFailure, ModelResults, find_extreme_minutes
from bsmamba2.evaluation.summary import (
    UNEVEN,
    Evaluation,
    bin_onsets,
    summarise_leakage,
    summarise_stem,
    text_tables,
)


def test_usdr_is_a_mean_and_csdr_a_median():
    summary = summarise_stem(
        [result(usdr=u, csdr=c) for u, c in ((1, 1), (2, 9), (6, 2))], "vocals"
    )
    assert (summary.usdr, summary.csdr) == (3, 2)
    assert (summary.usdr_gain, summary.csdr_gain) == (5, 3)
    assert (summary.frames, summary.dropped) == (30, 9)


def test_tracks_without_a_figure_are_left_out():
    summary = summarise_stem([result(csdr=NAN), result(csdr=4)], "vocals")
    assert (summary.csdr, summary.csdr_gain) == (4, 5)
    assert math.isnan(summarise_stem([result(csdr=NAN)], "vocals").csdr)


def test_leakage_is_the_median_over_tracks_with_silence():
    found = summarise_leakage([result(leakage=level) for level in (-50, NAN, -30, -60)])
    assert (found.tracks, found.silent_s) == (3, 12)
    assert (found.level_dbfs, found.mixture_dbfs) == (-50, -30)


def test_onsets_fall_into_the_bin_of_their_duration():
    durations = [0.2, 0.49, 0.5, 1, 3.9, 16, 100]
    found = bin_onsets([result(onsets=tuple(region(0, d, d) for d in durations))])
    assert [part.count for part in found] == [2, 1, 1, 1, 0, 0, 2]
    assert found[-1].median == np.median([16, 100])
    assert (found[0].quartile_1, found[0].quartile_3) == pytest.approx((0.2725, 0.4175))
    assert found[0].gain == pytest.approx(6)
    assert math.isnan(found[4].median)


def test_best_and_worst_minutes_are_those_with_voice_if_there_are_any():
    minutes = tuple(minute(60 * k, 60, sdr, voiced) for k, (sdr, voiced) in
                    enumerate([(3, 40), (9, 11), (-30, 2), (30, 9), (1, 60)]))  # fmt: skip
    best, worst = find_extreme_minutes([result("a", minutes=minutes[:2]),
                                        result("b", minutes=minutes[2:])])  # fmt: skip
    assert (best[0].track, best[1].sdr) == ("a", 9)
    assert (worst[0].track, worst[1].sdr) == ("b", 1)
    (only,) = find_extreme_minutes([result(minutes=(minute(0, 60, -3, 0),))])
    assert only[1].sdr == -3
    assert find_extreme_minutes([]) == []


def test_the_document_is_strict_json():
    found = evaluation([result(usdr=math.inf, csdr=NAN, onsets=(region(0, 20, 3),))])

    def refuse(name: str) -> None:
        raise AssertionError(name)

    document = json.loads(json.dumps(found.document()), parse_constant=refuse)
    (model,) = document["models"]
    assert model["stems"]["vocals"]["csdr"] is None
    assert model["by_onset"][-1]["to_s"] is None
    assert list(model["by_length"]) == ["1", "8"]
    assert model["tracks"][0]["stems"]["vocals"]["usdr"] is None


def test_tables_show_every_track_and_what_is_undefined():
    text = text_tables(evaluation([result("one", 1.234, NAN), result("two" * 20, 2)], ("a", "b")))
    assert text.count("one ") == 2
    assert "1.23 (-2.00)" in text
    assert "- (-1.00)" in text
    assert "two" * 20 not in text  # cut, so that columns stay
    assert all(len(line) < 140 for line in text.splitlines())


def test_a_name_in_a_table_cannot_command_a_terminal():
    assert "\na ?[31mb  " in text_tables(evaluation([result("a\n\x1b[31mb", 1)]))


def test_an_evaluation_without_results_has_a_document_and_a_table():
    failed = EvaluationFailure("m.onnx", "song", "It is empty.")
    nothing = Evaluation(
        data=Path("music"),
        split="test",
        songs=songs(["song"], notes="no audio files"),
        overlap_s=0,
        models=[ModelResults(model=evaluation([]).models[0].model, tracks=[], by_length={1: []})],
        failures=[failed],
        by_onset=True,
    )
    assert nothing.document()["failed"][0]["error"] == "It is empty."
    assert nothing.document()["songs"] == 1
    assert nothing.document()["left_out"] == {"notes": "no audio files"}
    assert "0 of 1 track (1 failed), 1 left out: notes (no audio files)" in text_tables(nothing)


def test_figures_over_different_tracks_cause_a_warning():
    both = evaluation([result("a"), result("b")], ("m.onnx", "other.onnx"))
    assert both.even
    assert UNEVEN not in text_tables(both)
    first, second = both.models
    uneven = replace(both, models=[first, replace(second, tracks=second.tracks[:1])])
    assert UNEVEN in text_tables(uneven)
