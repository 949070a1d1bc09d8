"""A song that is cut into chunks and joined again is unchanged."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bsmamba2.config.file import load_config
from bsmamba2.runtime.audio.samples import Samples
from bsmamba2.runtime.separation.chunking import Chunking


def song(n: int, channels: int = 2) -> Samples:
    return np.random.default_rng(n).standard_normal((channels, n)).astype(np.float32)


def in_blocks(samples: Samples, block: int) -> Iterator[Samples]:
    for start in range(0, samples.shape[1], block):
        yield samples[:, start : start + block]


def through(chunking: Chunking, blocks: Iterator[Samples]) -> Samples:
    return np.concatenate(list(chunking.join(chunking.split(blocks))), axis=1)


@pytest.mark.parametrize(("overlap", "fade"), [(0, 0), (2, 1), (20, 10), (50, 7), (98, 2), (98, 0)])
@pytest.mark.parametrize("n", [1, 2, 49, 50, 99, 100, 101, 199, 200, 201, 1234])
@pytest.mark.parametrize("block", [1, 7, 99, 100, 101, 5000])
def test_identity_engine_returns_the_song(n: int, overlap: int, fade: int, block: int):
    samples = song(n)
    assert np.array_equal(through(Chunking(100, overlap, fade), in_blocks(samples, block)), samples)


@pytest.mark.parametrize("overlap", [0, 20, 98])
@pytest.mark.parametrize("n", [1, 99, 100, 321])
def test_chunk_k_covers_its_part_of_the_song_and_zeros_elsewhere(n: int, overlap: int):
    chunking, samples = Chunking(100, overlap), song(n)
    padded = np.pad(samples, ((0, 0), (chunking.context, 200)))
    chunks = list(chunking.split(in_blocks(samples, 33)))
    assert len(chunks) == -(-n // chunking.step)
    for k, (chunk, _) in enumerate(chunks):
        start = k * chunking.step  # in the padded song
        assert chunking.start(k) == start - chunking.context
        assert np.array_equal(chunk, padded[:, start : start + 100])


def test_without_overlap_chunks_are_the_papers_concatenation():
    samples = song(250)
    chunks = list(Chunking(100, 0).split([samples]))
    assert [count for _, count in chunks] == [100, 100, 50]
    assert np.array_equal(chunks[1][0], samples[:, 100:200])
    assert not chunks[2][0][:, 50:].any()


def test_chunks_belong_to_the_receiver():
    samples = song(300)
    kept = []
    for chunk, count in Chunking(100, 20).split([samples]):
        kept.append(chunk[:, 10 : 10 + count].copy())
        chunk[:] = np.nan
    assert np.array_equal(np.concatenate(kept, axis=1), samples)


@pytest.mark.parametrize(("overlap", "fade"), [(0, 0), (20, 0), (20, 1), (20, 10), (98, 2)])
@pytest.mark.parametrize("n", [1, 79, 81, 85, 402])
def test_over_the_fade_a_result_rises_from_the_one_before_it(n: int, overlap: int, fade: int):
    chunking = Chunking(100, overlap, fade)
    results = [np.full((2, 100), k, np.float32) for k in range(-(-n // chunking.step))]
    counts = [count for _, count in chunking.split([song(n)])]
    joined = np.concatenate(list(chunking.join(zip(results, counts, strict=True))), axis=1)
    index, within = np.divmod(np.arange(n), chunking.step)
    rising = (index > 0) & (within < fade)
    expected = np.where(rising, index - 1 + (within + 0.5) / max(1, fade), index)
    assert joined.shape == (2, n)
    assert np.allclose(joined, expected, atol=1e-6)
    assert all((result == k).all() for k, result in enumerate(results))


def test_results_are_needed_one_at_a_time():
    chunking = Chunking(100, 20, 10)
    result = np.zeros((2, 100), np.float32)

    def reused() -> Iterator[tuple[Samples, int]]:
        for k in range(3):
            result[:] = k
            yield result, 80

    joined = [part[0, [0, 9, 10, 79]] for part in map(np.copy, chunking.join(reused()))]
    expected = [[0, 0, 0, 0], [0.05, 0.95, 1, 1], [1.05, 1.95, 2, 2]]
    assert np.allclose(joined, expected, atol=1e-6)


def test_a_chunk_comes_as_soon_as_its_last_sample():
    seen = 0

    def blocks() -> Iterator[Samples]:
        nonlocal seen
        for block in in_blocks(song(1000), 10):
            seen += 10
            yield block

    chunks = Chunking(100, 20).split(blocks())
    assert [next(chunks) is not None and seen for _ in range(3)] == [90, 170, 250]


def test_no_song_gives_no_chunk():
    assert list(Chunking(100, 20).split([])) == []
    assert list(Chunking(100, 20).split([np.zeros((2, 0), np.float32)])) == []


@pytest.mark.parametrize(("overlap", "fade", "word"), [
    (-2, 0, "overlap"), (1, 0, "overlap"), (100, 0, "overlap"), (102, 0, "overlap"),
    (0, 1, "fade"), (20, -1, "fade"), (20, 11, "fade"), (98, 3, "fade"),
])  # fmt: skip
def test_impossible_sizes_are_refused(overlap: int, fade: int, word: str):
    with pytest.raises(ValueError, match=word):
        Chunking(100, overlap, fade)


@pytest.mark.parametrize("overlap_s", [0, 0.01, 0.019, 0.25, 0.5, 0.999, 1, 3.99, 7.9])
def test_a_models_contexts_are_whole_frames_of_at_most_half_the_overlap(overlap_s: float):
    audio = load_config("bsmamba2").model.audio
    chunking = Chunking.of(audio, overlap_s)
    assert chunking.size == 8 * 44100
    assert chunking.context % audio.hop == 0
    assert overlap_s / 2 * 44100 - audio.hop < chunking.context <= overlap_s / 2 * 44100
    assert chunking.fade == min(2205, chunking.context, chunking.step)
