"""Laws of the export's gate: its figures are the differences, and NaN never passes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from foreign_files import model_of

from bsmamba2.errors import ExportError
from bsmamba2.export.precision.gates import (
    PARITY_FRAMES,
    check_parity,
    fixed_spectrum,
    measure_parity,
)
from bsmamba2.formats.metadata import MaskParity

AUDIO = model_of("tiny").audio


def twos(spectrum: np.ndarray) -> np.ndarray:
    return np.full_like(spectrum, 2)


def figures(difference: float, share: float = 1) -> list[MaskParity]:
    """Figures of a mask of which the first `share` of values differs from the reference's 2."""

    def candidate(spectrum: np.ndarray) -> np.ndarray:
        mask = twos(spectrum)
        mask.reshape(-1)[: math.ceil(share * mask.size)] += difference
        return mask

    return list(measure_parity(twos, candidate, AUDIO))


def test_figures_of_equal_masks_are_zero():
    for figure, frames in zip(figures(0), (1, 2, 63, 801), strict=True):
        assert figure == MaskParity(frames=frames, p999=0, relative_rms=0)


def test_figures_are_those_of_the_difference():
    for figure in figures(0.25):
        assert (figure.p999, figure.relative_rms) == (0.25, 0.125)
    for figure in figures(-0.25, share=0.5):
        assert figure.p999 == 0.25
        assert figure.relative_rms == pytest.approx(0.125 * math.sqrt(0.5), rel=1e-3)


def test_a_rare_difference_shows_in_the_rms_only():
    last = figures(0.25, share=1e-4)[-1]
    assert last.p999 == 0
    assert last.relative_rms == pytest.approx(0.125 * 0.01, rel=1e-2)


@pytest.mark.parametrize(
    ("p999", "relative_rms", "passes"),
    [
        (0, 0, True),
        (1e-4, 1e-5, True),
        (1.01e-4, 0, False),
        (0, 1.01e-5, False),
        (math.nan, 0, False),
        (0, math.nan, False),
        (math.inf, math.inf, False),
    ],
)
def test_figures_within_the_limits_pass_and_nan_fails(
    p999: float, relative_rms: float, passes: bool
):
    good = MaskParity(frames=1, p999=0, relative_rms=0)
    figure = MaskParity(frames=63, p999=p999, relative_rms=relative_rms)
    if passes:
        check_parity([good, figure])
        return
    with pytest.raises(ExportError, match="63 frames") as error:
        check_parity([good, figure, good])
    assert "nothing was written" in str(error.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_single_number_that_is_not_finite_fails(value: float):
    for figure in figures(value, share=1e-9):
        with pytest.raises(ExportError):
            check_parity([figure])


def test_a_silent_reference_does_not_hide_a_difference():
    found = list(measure_parity(np.zeros_like, twos, AUDIO))
    with pytest.raises(ExportError):
        check_parity(found)


def test_fixed_spectrum_is_fixed_loud_and_silent():
    for frames in PARITY_FRAMES:
        spectrum = fixed_spectrum(AUDIO, frames)
        assert spectrum.shape == (1, 2, frames, 1025, 2)
        assert spectrum.dtype == np.float32
        assert spectrum.flags.c_contiguous
        assert np.array_equal(spectrum, fixed_spectrum(AUDIO, frames))
        assert 0.1 < np.abs(spectrum).max() < 1000
    quiet = ~spectrum.any(axis=(0, 1, 3, 4))  # a second of silence: 100 frames, less a window
    assert 90 < quiet.sum() < 100
    left, right = spectrum[0]
    assert np.abs(left - right).max() > 1
