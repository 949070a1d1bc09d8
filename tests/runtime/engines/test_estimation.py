"""Estimators: batches in flight, their order, errors and the mask product."""

from __future__ import annotations

import numpy as np
import pytest
from audio_files import RATE, noise
from small_engines import FunctionEngine, random_mask, real_mask

from bsmamba2.errors import EngineError
from bsmamba2.runtime.engines.estimation import (
    Batch,
    Chunks,
    EngineEstimator,
    check_finite,
    estimator_of,
    finite_frames,
    masked,
)
from bsmamba2.runtime.separation.separator import Separator
from bsmamba2.system.lanes import Pending


class Deferred:
    """An estimator that does its work when the result is requested; records the order."""

    def __init__(self, in_flight: int) -> None:
        self.in_flight = in_flight
        self.events: list[str] = []
        self._engine = EngineEstimator(FunctionEngine(random_mask()))

    def begin(self, batch: Batch) -> Pending[Chunks]:
        number = sum(event.startswith("begin") for event in self.events)
        self.events.append(f"begin {number}")
        estimator, events = self._engine, self.events

        class Later:
            def result(self) -> Chunks:
                events.append(f"result {number}")
                return estimator.begin(batch).result()

            def cancel(self) -> None:
                events.append(f"cancel {number}")

        return Later()


class WithEstimator(FunctionEngine):
    """An engine with an estimator of its own."""

    def __init__(self, estimator: object) -> None:
        super().__init__(real_mask(1))
        self.batches: list[int] = []
        self._estimator = estimator

    def estimator(self, batch: int) -> object:
        self.batches.append(batch)
        return self._estimator


@pytest.mark.parametrize("in_flight", [1, 2, 3, 10])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_as_many_batches_are_begun_as_the_estimator_wants(in_flight: int, batch: int):
    estimator = Deferred(in_flight)
    engine = WithEstimator(estimator)
    mixture = noise(5 * RATE, level=1)
    found = Separator(engine, overlap_s=0, batch=batch).separate(mixture, RATE)
    expected = Separator(FunctionEngine(random_mask()), overlap_s=0).separate(mixture, RATE)
    assert np.array_equal(found["vocals"], expected["vocals"])
    assert engine.batches == [batch]
    count = -(-5 // batch)
    begun = done = most = 0
    for event in estimator.events:
        begun, done = begun + event.startswith("begin"), done + event.startswith("result")
        most = max(most, begun - done)
    assert most == min(in_flight, count)
    for kind in ("begin", "result"):
        own = [event for event in estimator.events if event.startswith(kind)]
        assert own == [f"{kind} {number}" for number in range(count)]


def test_what_was_begun_is_cancelled_when_a_song_is_left():
    estimator = Deferred(3)
    stems = Separator(WithEstimator(estimator), overlap_s=0).stream(
        [noise(9 * RATE, level=1)], RATE, 2
    )
    next(stems)
    stems.close()
    assert sorted(event for event in estimator.events if event.startswith("cancel")) == [
        f"cancel {number}" for number in range(3)
    ]  # a batch that is done has nothing to cancel


def test_every_other_engine_gets_the_estimator_for_all():
    engine = FunctionEngine(real_mask(1))
    estimator = estimator_of(engine, 3)
    assert isinstance(estimator, EngineEstimator)
    chunks = noise(RATE, level=1)[None]
    assert np.abs(estimator.begin(Batch(chunks, (0,))).result() - chunks).max() < 1e-5
    assert len(engine.shapes) == 1


def test_times_are_those_of_the_song_and_not_before_it():
    audio = FunctionEngine(real_mask(1)).metadata.model.audio
    batch = Batch(np.zeros((2, 2, RATE), np.float32), (-11025, 2 * RATE))
    assert batch.seconds(audio) == 0
    assert batch.seconds(audio, 0, 50) == 0.25
    assert batch.seconds(audio, 1, 3) == 2.03


def test_frames_with_anything_else_than_numbers_are_found():
    estimate = np.zeros((2, 2, 5, 1025), np.complex64)
    estimate[1, 0, 3, 7] = complex(0, np.inf)
    estimate[0, 1, 4, 0] = complex(np.nan, 0)
    finite = finite_frames(estimate)
    assert finite.shape == (2, 5)
    assert list(zip(*np.nonzero(~finite), strict=True)) == [(0, 4), (1, 3)]
    audio = FunctionEngine(real_mask(1)).metadata.model.audio
    batch = Batch(np.zeros((2, 2, RATE), np.float32), (0, RATE))
    with pytest.raises(EngineError, match=r"at 0\.04 s"):
        check_finite(finite, batch, audio)
    check_finite(np.ones((2, 5), bool), batch, audio)


def test_mask_product_is_complex():
    mask = np.array([[0.5, 2.0], [-1.0, 3.0]], np.float32).reshape(1, 1, 1, 2, 2)
    spectrum = np.array([1 + 1j, 2 - 1j], np.complex64).reshape(1, 1, 1, 2)
    expected = [(0.5 + 2j) * (1 + 1j), (-1 + 3j) * (2 - 1j)]
    assert np.array_equal(masked(mask, spectrum).ravel(), np.array(expected, np.complex64))


@pytest.mark.parametrize("value", [3e38, -3e38])
def test_masks_that_overflow_are_an_error_and_no_warning(value: float):
    """The masks are finite, but the samples would be infinite."""
    engine = FunctionEngine(real_mask(value))
    with pytest.raises(EngineError, match="mask"):
        Separator(engine, overlap_s=0).separate(noise(2 * RATE, level=1), RATE)


def test_masks_of_another_shape_are_refused():
    separator = Separator(FunctionEngine(lambda spectrum: spectrum[:, :, :-1]), overlap_s=0)
    with pytest.raises(EngineError, match=r"mask of shape \(1, 2, 100, 1025, 2\) .* at 0\.00 s"):
        separator.separate(noise(RATE, level=1), RATE)
