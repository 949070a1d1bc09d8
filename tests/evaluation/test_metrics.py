"""uSDR against its formula, cSDR against museval's own code, and the sums over grains."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from songs import decoded, excerpt
from voiced_songs import RATE, plain_usdr

from bsmamba2.errors import BsmError
from bsmamba2.evaluation.metrics import (
    FLOOR_DBFS,
    GRAINS_PER_S,
    EnergyMeter,
    csdr_frames,
    level_dbfs,
    usdr,
)


@pytest.fixture(scope="module")
def museval() -> ModuleType:
    """museval/metrics.py loaded as a file, because importing the package needs ffmpeg."""
    found = importlib.util.find_spec("museval")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs museval, to be compared with")
    path = f"{found.submodule_search_locations[0]}/metrics.py"
    spec = importlib.util.spec_from_file_location("museval_metrics", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def museval_frames(museval: ModuleType, reference: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    sdr, *_ = museval.bss_eval(
        reference.T[None],
        estimate.T[None],
        window=RATE,
        hop=RATE,
        compute_permutation=False,
        framewise_filters=False,  # version 4
        bsseval_sources_version=False,
    )
    return sdr[0]


def noise(n: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal((2, n)) * level
    return samples.astype(np.float32)


# --- uSDR ---


@pytest.mark.parametrize("n", [1, 4097, 3 * RATE + 5, 2_200_000])
@pytest.mark.parametrize("error", [0.0, 1e-4, 1.0])
def test_usdr_is_the_formula(n: int, error: float):
    reference = noise(n)
    estimate = reference + np.float32(error) * noise(n, 1)
    assert usdr(reference, estimate) == pytest.approx(plain_usdr(reference, estimate), abs=1e-9)


def test_usdr_of_silence_against_silence_is_zero():
    silence = np.zeros((2, 100), np.float32)
    assert usdr(silence, silence) == 0


def test_usdr_changes_neither_array():
    reference, estimate = noise(1000).astype(np.float64), noise(1000, 1).astype(np.float64)
    before = reference.copy(), estimate.copy()
    usdr(reference, estimate)
    np.testing.assert_array_equal(reference, before[0])
    np.testing.assert_array_equal(estimate, before[1])


@pytest.mark.parametrize("shapes", [((2, 5), (2, 6)), ((5,), (5,)), ((1, 5), (2, 5))])
def test_arrays_of_different_shapes_are_refused(shapes: tuple[tuple[int, ...], ...]):
    with pytest.raises(ValueError, match="channels"):
        usdr(np.zeros(shapes[0]), np.zeros(shapes[1]))


# --- cSDR ---


def with_silences(reference: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A second without reference, one without estimate, one whose channels cancel out."""
    reference[:, RATE : 2 * RATE] = 0
    estimate[:, 2 * RATE : 3 * RATE] = 0
    reference[1, 3 * RATE : 4 * RATE] = -reference[0, 3 * RATE : 4 * RATE]
    return reference, estimate


SIGNALS: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "noise": lambda: (noise(2 * RATE), noise(2 * RATE) + noise(2 * RATE, 1, 0.03)),
    "with a tail": lambda: (noise(2 * RATE + 777), noise(2 * RATE + 777, 1)),
    "shorter than a second": lambda: (noise(9_000), noise(9_000) + noise(9_000, 2, 0.01)),
    "with silences": lambda: with_silences(noise(5 * RATE), noise(5 * RATE, 1)),
}


@pytest.mark.parametrize("name", SIGNALS)
def test_frames_are_musevals(museval: ModuleType, name: str):
    reference, estimate = SIGNALS[name]()
    expected = museval_frames(museval, reference, estimate)
    np.testing.assert_allclose(csdr_frames(reference, estimate, RATE), expected, rtol=0, atol=1e-9)


def test_frames_of_music_are_musevals(museval: ModuleType):
    import av

    song = excerpt()
    with av.open(str(song)) as container:
        vocals = next(s for s in reversed(container.streams.audio))
        frames = [frame.to_ndarray() for frame in container.decode(vocals)]
    reference = np.concatenate(frames, axis=1)[:, : 4 * RATE]
    estimate = 0.7 * reference + 0.1 * decoded(song).T[:, : 4 * RATE]
    expected = museval_frames(museval, reference, estimate)
    assert np.isfinite(expected).any()
    np.testing.assert_allclose(csdr_frames(reference, estimate, RATE), expected, rtol=0, atol=1e-6)


def test_a_silent_song_has_no_frames_where_museval_raises(museval: ModuleType):
    silence, estimate = np.zeros((2, 2 * RATE), np.float32), noise(2 * RATE)
    with pytest.raises(ValueError, match="silent"):
        museval_frames(museval, silence, estimate)
    assert np.isnan(csdr_frames(silence, estimate, RATE)).all()


def test_a_perfect_frame_is_infinite():
    assert csdr_frames(noise(RATE), noise(RATE), RATE) == [np.inf]


# --- grains ---


def test_blocks_of_any_size_give_the_same_energies():
    reference, estimate = noise(RATE + 1234), noise(RATE + 1234, 1)
    whole, parts = EnergyMeter(RATE), EnergyMeter(RATE)
    whole.add(reference, estimate)
    edges = [0, 1, 2, 900, 900, 30_000, RATE + 1234]
    for start, stop in itertools.pairwise(edges):
        parts.add(reference[:, start:stop], estimate[:, start:stop])
    for name in ("signal", "error", "sounding", "samples"):
        one, other = (getattr(meter.finish(), name) for meter in (whole, parts))
        np.testing.assert_allclose(one, other, rtol=1e-13, err_msg=name)  # sums in another order


def test_grains_add_up_to_the_song():
    reference, estimate = noise(2 * RATE + 10), noise(2 * RATE + 10, 1)
    meter = EnergyMeter(RATE)
    meter.add(reference, estimate)
    energies = meter.finish()
    assert energies.signal.size == 2 * GRAINS_PER_S + 1
    assert energies.samples.sum() == reference.size
    assert energies.usdr() == pytest.approx(plain_usdr(reference, estimate), abs=1e-9)


@pytest.mark.parametrize("rate", [0, 11_025, 44_101])
def test_rates_that_do_not_divide_are_refused(rate: int):
    with pytest.raises(BsmError, match="multiple of 50 Hz"):
        EnergyMeter(rate)


@pytest.mark.parametrize(("energy", "samples", "level"),
                         [(8.0, 8, 0.0), (0.08, 8, -20.0), (0, 8, FLOOR_DBFS), (0, 0, FLOOR_DBFS),
                          (1e-20, 1, FLOOR_DBFS)])  # fmt: skip
def test_levels_refer_to_an_rms_of_one(energy: float, samples: int, level: float):
    assert math.isclose(level_dbfs(energy, samples), level, abs_tol=1e-12)
