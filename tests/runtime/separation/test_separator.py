"""Laws of the separator that hold for every engine."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_files import noise
from small_engines import FunctionEngine, random_mask, real_mask
from songs import assert_null

from bsmamba2.errors import AudioError, BsmError, EngineError
from bsmamba2.runtime.separation.separator import RESIDUAL, Separator

torch = pytest.importorskip("torch")

RATES = [44100, 48000, 96000, 22050, 8000]
OVERLAPS = [0.0, 0.25, 0.5]


def separator_of(engine: FunctionEngine, overlap_s: float = 0.25, batch: int = 1) -> Separator:
    return Separator(engine, overlap_s=overlap_s, batch=batch)


def tones(rate: int, seconds: float) -> np.ndarray:
    """Faded tones, so that no filter rings at the ends."""
    t = np.arange(int(rate * seconds)) / rate
    fade = np.sin(np.pi / 2 * np.clip(np.minimum(t, t[-1] - t) / 0.3, 0, 1)) ** 4
    return np.stack([np.sin(2 * np.pi * 440 * t), np.cos(2 * np.pi * 1234 * t)]) * fade * 0.5


@pytest.mark.parametrize("twin", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_separator_is_made_in_each_process(twin: Callable[[Separator], object]):
    with pytest.raises(TypeError, match="make one in each process"):
        twin(separator_of(FunctionEngine(real_mask(1))))


@pytest.mark.parametrize("overlap_s", OVERLAPS)
@pytest.mark.parametrize("n", [1, 2, 44099, 44100, 44101, 100_000])
def test_ones_mask_returns_mixture(n: int, overlap_s: float):
    mixture = noise(n)
    stems = separator_of(FunctionEngine(real_mask(1)), overlap_s=overlap_s).separate(mixture, 44100)
    assert np.abs(stems["vocals"] - mixture).max() < 1e-6
    assert np.abs(stems[RESIDUAL]).max() < 1e-6


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("overlap_s", OVERLAPS[:2])
def test_ones_mask_returns_mixture_of_any_rate_without_delay(rate: int, overlap_s: float):
    mixture = tones(rate, 2.3)
    stems = separator_of(FunctionEngine(real_mask(1)), overlap_s=overlap_s).separate(mixture, rate)
    assert stems["vocals"].shape == mixture.shape
    assert np.abs(stems["vocals"] - mixture).max() < 1e-6


@pytest.mark.parametrize("rate", [*RATES, 192_000, 7777])
@pytest.mark.parametrize(("n", "scale"), [(1, 1), (2, 1), (1000, 0.1), (44101, 1), (70_000, 100)])
def test_vocals_plus_instrumental_is_mixture(n: int, rate: int, scale: float):
    mixture = noise(n)
    stems = separator_of(FunctionEngine(random_mask(scale))).separate(mixture, rate)
    assert {stem.shape for stem in stems.values()} == {mixture.shape}
    assert {stem.dtype for stem in stems.values()} == {np.dtype(np.float32)}
    assert_null(mixture, **stems)


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize("shape", [(70_000,), (1, 70_000), (2, 70_000)])
def test_silence_gives_exact_silence(shape: tuple[int, ...], rate: int):
    stems = separator_of(FunctionEngine(random_mask(50))).separate(np.zeros(shape), rate)
    for stem in stems.values():
        assert stem.shape == shape
        assert not stem.any()


def test_no_overlap_is_the_hard_concatenation_of_chunks_transformed_by_torch():
    mixture = noise(100_000)
    padded = np.pad(mixture, ((0, 0), (0, 3 * 44100 - 100_000)))
    window = torch.hann_window(2048)
    expected = []
    for chunk in torch.from_numpy(padded).split(44100, dim=1):
        spectrum = torch.stft(chunk, 2048, 441, window=window, return_complex=True)
        view = torch.view_as_real(spectrum.transpose(1, 2)).numpy()[None]
        mask = torch.view_as_complex(torch.from_numpy(random_mask()(view).copy()))[0]
        product = spectrum * mask.transpose(1, 2)
        expected.append(torch.istft(product, 2048, 441, window=window, length=44100))
    reference = torch.cat(expected, dim=1).numpy()[:, :100_000]
    stems = separator_of(FunctionEngine(random_mask()), overlap_s=0).separate(mixture, 44100)
    assert np.abs(stems["vocals"] - reference).max() < 2e-6 * np.abs(reference).max()


def test_mono_is_doubled_in_and_averaged_back():
    mono = noise(50_000, 1)
    separator = separator_of(FunctionEngine(random_mask()))
    stereo = separator.separate(np.repeat(mono, 2, axis=0), 44100)["vocals"]
    for shaped in (mono, mono[0]):
        vocals = separator.separate(shaped, 44100)["vocals"]
        assert vocals.shape == shaped.shape
        assert np.allclose(vocals, stereo.mean(axis=0), atol=1e-7)


@pytest.mark.parametrize("batch", [2, 3, 100])
def test_batches_change_nothing_but_the_number_of_calls(batch: int):
    mixture = noise(200_000)
    one, many = FunctionEngine(random_mask()), FunctionEngine(random_mask())
    expected = separator_of(one, overlap_s=0.5).separate(mixture, 44100)
    stems = separator_of(many, overlap_s=0.5, batch=batch).separate(mixture, 44100)
    assert np.array_equal(stems["vocals"], expected["vocals"])
    assert len(one.shapes) == sum(shape[0] for shape in many.shapes) == 10
    assert len(many.shapes) == -(-10 // batch)
    assert one.shapes[0] == (1, 2, 101, 1025, 2)


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize("block", [1000, 44100, 300_000])
def test_stream_of_any_blocks_is_the_whole_song(block: int, rate: int):
    mixture = noise(150_000)
    separator = separator_of(FunctionEngine(random_mask()), overlap_s=0.25)
    blocks = (mixture[:, start : start + block] for start in range(0, 150_000, block))
    parts = list(separator.stream(blocks, rate, 2))
    whole = separator.separate(mixture, rate)
    for name, stem in whole.items():
        streamed = np.concatenate([part[name] for part in parts], axis=1)
        assert np.abs(streamed - stem).max() < 1e-6


def test_stream_answers_before_the_song_ends():
    fed = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal fed
        while True:
            fed += 10_000
            yield noise(10_000)

    stems = separator_of(FunctionEngine(real_mask(1)), overlap_s=0.5).stream(endless(), 48000, 2)
    for _ in range(3):
        next(stems)
    assert fed < 48000 * 4


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_mixture_stays_as_it_was(dtype: type):
    mixture = noise(50_000).astype(dtype)
    before = mixture.copy()
    stems = separator_of(FunctionEngine(random_mask())).separate(mixture, 44100)
    for stem in stems.values():
        stem[:] = 0
    assert np.array_equal(mixture, before)


BAD_MIXTURES: list[tuple[Callable[[], np.ndarray], str]] = [
    (lambda: np.zeros((2, 0)), "no samples"),
    (lambda: np.zeros(0), "no samples"),
    (lambda: np.zeros((3, 100)), "3 channels"),
    (lambda: np.zeros((100, 2)), "100 channels"),
    (lambda: np.zeros((1, 2, 100)), "shape"),
    (lambda: np.zeros((2, 100), np.int16), "floats"),
    (lambda: np.pad([[np.nan]], ((0, 1), (22050, 0))), "NaN or infinite samples at 0.500 s"),
    (lambda: np.full((2, 10), 1e300), "infinite samples at 0.000 s"),
]


@pytest.mark.parametrize(("make", "words"), BAD_MIXTURES)
def test_what_is_no_mixture_is_refused(make: Callable[[], np.ndarray], words: str):
    with pytest.raises(AudioError, match=words):
        separator_of(FunctionEngine(real_mask(1))).separate(make(), 44100)


@pytest.mark.parametrize("name", ["song.wav", Path("song.wav")])
def test_names_in_place_of_arrays_and_engines_are_refused(name: Any):
    with pytest.raises(AudioError, match=r"an array, not the file name 'song\.wav'"):
        separator_of(FunctionEngine(real_mask(1))).separate(name, 44100)
    with pytest.raises(TypeError, match=r"pass load_engine\('song\.wav'\)"):
        separator_of(name)


@pytest.mark.parametrize("rate", [0, -1, 44100.5])
def test_impossible_rates_are_refused(rate: float):
    with pytest.raises(AudioError, match="sample rate"):
        separator_of(FunctionEngine(real_mask(1))).separate(np.zeros((2, 100)), rate)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_broken_mask_is_an_error_with_its_time_in_the_song(value: float, batch: int):
    chunk = 0

    def mask(spectrum: np.ndarray) -> np.ndarray:
        nonlocal chunk
        values = np.zeros_like(spectrum)
        for item in values:
            if chunk == 2:
                item[1, 30, 7, 0] = value
            chunk += 1
        return values

    separator = separator_of(FunctionEngine(mask), overlap_s=0.5, batch=batch)
    # Chunk 2 begins at 2 * 0.5 - 0.25 s; a frame is 10 ms.
    with pytest.raises(EngineError, match=r"NaN or infinite at 1\.05 s"):
        separator.separate(noise(200_000), 44100)


def test_a_mask_of_another_shape_is_an_error():
    separator = separator_of(FunctionEngine(lambda spectrum: spectrum[:, :1]))
    with pytest.raises(EngineError, match=r"\(1, 1, 101, 1025, 2\)"):
        separator.separate(noise(1000), 44100)


@pytest.mark.parametrize(("overlap_s", "batch"), [(-1, 1), (1, 1), (float("nan"), 1), (0, 0)])
def test_impossible_options_are_refused(overlap_s: float, batch: int):
    with pytest.raises(BsmError):
        separator_of(FunctionEngine(real_mask(1)), overlap_s=overlap_s, batch=batch)


def test_context_hides_what_an_engine_does_wrong_at_the_ends_of_a_chunk():
    def mask(spectrum: np.ndarray) -> np.ndarray:
        values = real_mask(1)(spectrum)
        values[:, :, :10] = values[:, :, -10:] = 0
        return values

    mixture = noise(100_000)
    hidden = separator_of(FunctionEngine(mask), overlap_s=0.5).separate(mixture, 44100)
    assert np.abs(hidden["vocals"] - mixture).max() < 1e-6
    heard = separator_of(FunctionEngine(mask), overlap_s=0).separate(mixture, 44100)
    assert np.abs(heard["vocals"] - mixture).max() > 0.1


def test_neighbours_that_disagree_meet_without_a_step():
    gains = itertools.cycle((1.0, 0.5))
    mixture = 0.5 * np.sin(2 * np.pi * 50 / 44100 * np.arange(150_000) + np.array([[0.5], [1.5]]))

    def largest_step(overlap_s: float) -> float:
        engine = FunctionEngine(lambda spectrum: real_mask(next(gains))(spectrum))
        vocals = separator_of(engine, overlap_s=overlap_s).separate(mixture, 44100)["vocals"]
        return float(np.abs(np.diff(vocals)).max())

    assert largest_step(0.5) < 1.5 * np.abs(np.diff(mixture)).max()
    assert largest_step(0) > 10 * np.abs(np.diff(mixture)).max()
