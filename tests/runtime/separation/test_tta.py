"""Averages over a song in several guises."""

from __future__ import annotations

import numpy as np
import pytest
from audio_files import RATE, noise
from small_engines import FunctionEngine, random_mask, real_mask

from bsmamba2.errors import BsmError
from bsmamba2.runtime.separation.separator import Separator
from bsmamba2.runtime.separation.tta import TTA_MODES


def vocals(engine: FunctionEngine, mixture: np.ndarray, **options: object) -> np.ndarray:
    return Separator(engine, overlap_s=0.25, **options).separate(mixture, RATE)["vocals"]


@pytest.mark.parametrize("mode", TTA_MODES)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_of_a_linear_engine_it_is_the_identity(mode: str, channels: int, batch: int):
    """Alike in both channels, that is."""
    mixture = noise(channels=channels, level=1)
    plain = vocals(FunctionEngine(real_mask(0.7)), mixture)
    found = vocals(FunctionEngine(real_mask(0.7)), mixture, batch=batch, tta=mode)
    assert np.abs(found - plain).max() < 1e-6


@pytest.mark.parametrize(("mode", "cost"), [("swap", 2), ("polarity", 2), ("both", 4)])
def test_it_costs_what_is_said(mode: str, cost: int):
    plain, averaged = FunctionEngine(real_mask(1)), FunctionEngine(real_mask(1))
    vocals(plain, noise(level=1))
    vocals(averaged, noise(level=1), tta=mode)
    assert len(averaged.shapes) == cost * len(plain.shapes)


def left_only(spectrum: np.ndarray) -> np.ndarray:
    """Keeps the left channel."""
    mask = real_mask(1)(spectrum)
    mask[:, 1] = 0
    return mask


def rising_only(spectrum: np.ndarray) -> np.ndarray:
    """Keeps bins with a positive real part, drops the others."""
    mask = real_mask(1)(spectrum)
    mask[..., 0] *= spectrum[..., 0] > 0
    return mask


def test_swapping_evens_out_what_an_engine_does_to_one_channel():
    mixture = noise(level=1)
    found = vocals(FunctionEngine(left_only), mixture, tta="swap")
    assert np.abs(found - mixture / 2).max() < 1e-5
    assert np.abs(vocals(FunctionEngine(left_only), mixture, tta="polarity")[1]).max() < 1e-6


def test_inverting_evens_out_what_depends_on_the_sign():
    mixture = noise(level=1)
    found = vocals(FunctionEngine(rising_only), mixture, tta="polarity")
    assert np.abs(found - mixture / 2).max() < 1e-5


def test_swapping_takes_each_channels_mask_from_both():
    mixture, engine = noise(level=1), FunctionEngine(random_mask())
    swapped = vocals(FunctionEngine(random_mask()), np.ascontiguousarray(mixture[::-1]))[::-1]
    expected = (vocals(FunctionEngine(random_mask()), mixture) + swapped) / 2
    assert np.abs(vocals(engine, mixture, tta="swap") - expected).max() < 1e-5


def test_unknown_modes_are_refused():
    with pytest.raises(BsmError, match="swap, polarity, both"):
        Separator(FunctionEngine(real_mask(1)), overlap_s=0, tta="mirror")
