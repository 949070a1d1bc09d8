"""Test-time augmentation: averages over variants of a song."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from audio_files import RATE, noise
from small_engines import FunctionEngine, real_mask

from bsmamba2.errors import BsmError
from bsmamba2.runtime.separation.separator import Separator
from bsmamba2.runtime.separation.tta import TTA_MODES


def vocals(engine: FunctionEngine, mixture: np.ndarray, **options: object) -> np.ndarray:
    return Separator(engine, overlap_s=0.25, **options).separate(mixture, RATE)["vocals"]


@pytest.mark.parametrize("mode", TTA_MODES)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_of_a_linear_engine_it_is_the_identity(mode: str, channels: int, batch: int):
    """Linear, and with the same mask for both channels."""
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


@pytest.mark.parametrize(("engine", "mode"), [(left_only, "swap"), (rising_only, "polarity")])
def test_an_average_evens_out_what_depends_on_the_variant(
    engine: Callable[[np.ndarray], np.ndarray], mode: str
):
    mixture = noise(level=1)
    found = vocals(FunctionEngine(engine), mixture, tta=mode)
    assert np.abs(found - mixture / 2).max() < 1e-5


def test_unknown_modes_are_refused():
    with pytest.raises(BsmError, match="swap, polarity, both"):
        Separator(FunctionEngine(real_mask(1)), overlap_s=0, tta="mirror")
