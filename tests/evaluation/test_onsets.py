"""Onsets of vocals whose entries are known."""

from __future__ import annotations

import numpy as np
import pytest
from voiced_songs import RATE, voice

from bsmamba2.evaluation.metrics import EnergyMeter, GrainEnergies
from bsmamba2.evaluation.onsets import find_onsets, silent_seconds


def energies(samples: np.ndarray) -> GrainEnergies:
    meter = EnergyMeter(RATE)
    meter.add(samples.T, np.zeros_like(samples.T))
    return meter.finish()


def onsets_s(samples: np.ndarray) -> list[tuple[float, float]]:
    return [(start / 50, stop / 50) for start, stop in find_onsets(energies(samples))]


def test_bursts_are_found_at_their_times():
    bursts = [(0.5, 1.0), (2.0, 4.0), (5.0, 5.4)]
    assert onsets_s(voice(6, bursts)) == bursts


def test_a_burst_from_the_first_to_the_last_sample_is_one_onset():
    assert onsets_s(voice(2, [(0, 2)])) == [(0, 2)]


@pytest.mark.parametrize(("pause_s", "count"), [(0.28, 1), (0.3, 2)])
def test_short_pauses_do_not_end_an_onset(pause_s: float, count: int):
    assert len(onsets_s(voice(4, [(1, 2), (2 + pause_s, 3)]))) == count


@pytest.mark.parametrize(("duration_s", "count"), [(0.18, 0), (0.2, 1)])
def test_clicks_are_dropped(duration_s: float, count: int):
    assert len(onsets_s(voice(2, [(1, 1 + duration_s)]))) == count


@pytest.mark.parametrize(("level", "count"), [(0.3 * 10**-1.9, 2), (0.3 * 10**-2.1, 1)])
def test_what_is_40_db_below_the_loudest_is_silence(level: float, count: int):
    def square(start: float, stop: float, level: float) -> np.ndarray:
        samples = np.zeros((4 * RATE, 2))
        samples[round(start * RATE) : round(stop * RATE)] = level
        return samples

    assert len(onsets_s(square(0, 1, 0.3) + square(2, 3, level))) == count


def test_silence_and_what_lies_below_60_dbfs_have_no_onsets():
    assert onsets_s(np.zeros((RATE, 2))) == []
    assert onsets_s(np.full((RATE, 2), 0.9e-3)) == []
    assert onsets_s(np.zeros((0, 2))) == []


def test_seconds_below_60_dbfs_are_silent():
    samples = np.repeat([0.1, 0.9e-3, 1.1e-3, 0.0], RATE)[:, None].repeat(2, axis=1)
    assert silent_seconds(energies(samples)).tolist() == [False, True, False, True]
