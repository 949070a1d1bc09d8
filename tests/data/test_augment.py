"""Laws of augmentations."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
from noise_songs import DATA, data_config

from bsmamba2.data.augment import augment, check_augmentations, equalise, transpose
from bsmamba2.errors import MissingExtraError

RATE = 44100
NAMES = ("swap", "polarity", "eq", "pitch")


def stem(samples: int = RATE // 2) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32)


def changed(seed: int = 0, **probabilities: float) -> np.ndarray:
    data = data_config(**{f"{name}_probability": p for name, p in probabilities.items()})
    return augment(stem(), np.random.default_rng(seed), data, RATE)


def peak_hz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * RATE / len(samples)


def test_by_default_nothing_is_changed() -> None:
    rng = np.random.default_rng(0)
    assert all(np.array_equal(augment(stem(), rng, DATA, RATE), stem()) for _ in range(20))


@pytest.mark.parametrize(
    ("name", "law"),
    [("swap", lambda x: x[::-1]), ("polarity", lambda x: -x)],
)
def test_swap_reverses_channels_and_polarity_negates(
    name: str, law: Callable[[np.ndarray], np.ndarray]
) -> None:
    assert np.array_equal(changed(**{name: 1.0}), law(stem()))


@pytest.mark.parametrize("name", NAMES)
def test_each_happens_with_its_probability(name: str) -> None:
    if name == "pitch":
        pytest.importorskip("python_stretch")
    data = data_config(**{f"{name}_probability": 0.3})
    short = stem(400)
    rng = np.random.default_rng(0)
    count = sum(not np.array_equal(augment(short, rng, data, RATE), short) for _ in range(500))
    assert count == pytest.approx(150, abs=3 * np.sqrt(500 * 0.3 * 0.7))


def test_one_does_not_change_what_another_does() -> None:
    both = changed(eq=1.0, swap=1.0)
    assert np.array_equal(both, changed(eq=1.0)[::-1])
    assert not np.array_equal(changed(eq=1.0), changed(seed=1, eq=1.0))


def test_the_result_is_an_array_of_its_own_layout() -> None:
    for name in ("swap", "polarity", "eq"):
        result = changed(**{name: 1.0})
        assert result.dtype == np.float32
        assert result.flags.c_contiguous


@pytest.mark.parametrize("gain_db", [-6.0, 3.0])
@pytest.mark.parametrize("centre_hz", [80.0, 1000.0, 9000.0])
def test_a_bell_has_its_gain_at_its_centre_and_none_far_from_it(
    gain_db: float, centre_hz: float
) -> None:
    impulse = np.zeros((2, RATE), dtype=np.float32)
    impulse[:, 0] = 1
    response = equalise(impulse, np.array([centre_hz]), np.array([gain_db]), RATE)
    level_db = 20 * np.log10(np.abs(np.fft.rfft(response)))  # a bin a Hz
    assert level_db[:, round(centre_hz)] == pytest.approx(gain_db, abs=0.01)
    assert level_db[:, [0, RATE // 2]] == pytest.approx(0, abs=0.01)
    assert np.abs(level_db).max() == pytest.approx(abs(gain_db), abs=0.01)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_bells_above_the_band_keep_the_signal_bounded(rate: int) -> None:
    result = equalise(stem(), np.array([10_000.0] * 3), np.array([6.0] * 3), rate)
    assert np.abs(result).max() < 10 * np.abs(stem()).max()


@pytest.mark.parametrize("semitones", [-2.0, 0.7, 2.0])
def test_transposition_moves_a_tone_and_keeps_time(semitones: float) -> None:
    pytest.importorskip("python_stretch")
    time_s = np.arange(2 * RATE) / RATE
    tone = (0.5 * np.sin(2 * np.pi * 440 * time_s) * (time_s > 0.7)).astype(np.float32)
    result = transpose(np.stack([tone, 0.5 * tone]), semitones, RATE)
    assert result.shape == (2, 2 * RATE)
    for channel, level in zip(result, (1.0, 0.5), strict=True):
        assert peak_hz(channel[RATE:]) == pytest.approx(440 * 2 ** (semitones / 12), rel=0.005)
        assert np.abs(channel[RATE:]).max() == pytest.approx(0.5 * level, rel=0.2)
        onset_s = np.argmax(np.abs(channel) > 0.25 * level) / RATE
        assert onset_s == pytest.approx(0.7, abs=0.05)


def test_pitch_without_its_library_is_an_error_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "python_stretch", None)
    check_augmentations(DATA)
    with pytest.raises(MissingExtraError, match=r"bsmamba2\[augment\]"):
        check_augmentations(data_config(pitch_probability=0.1))
