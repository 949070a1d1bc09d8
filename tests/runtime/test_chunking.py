"""Cut and put together, a song is what it was."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bsmamba2.runtime.chunking import Chunking, Samples


def song(n: int, channels: int = 2) -> Samples:
    return np.random.default_rng(n).standard_normal((channels, n)).astype(np.float32)


def in_blocks(samples: Samples, block: int) -> Iterator[Samples]:
    for start in range(0, samples.shape[1], block):
        yield samples[:, start : start + block]


def through(chunking: Chunking, blocks: Iterator[Samples]) -> Samples:
    return np.concatenate([chunking.keep(c, count) for c, count in chunking.split(blocks)], axis=1)


@pytest.mark.parametrize("overlap", [0, 2, 20, 50, 98])
@pytest.mark.parametrize("n", [1, 2, 49, 50, 99, 100, 101, 199, 200, 201, 1234])
@pytest.mark.parametrize("block", [1, 7, 99, 100, 101, 5000])
def test_identity_engine_returns_the_song(n: int, overlap: int, block: int):
    samples = song(n)
    assert np.array_equal(through(Chunking(100, overlap), in_blocks(samples, block)), samples)


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


@pytest.mark.parametrize("overlap", [-2, 1, 100, 102])
def test_impossible_overlaps_are_refused(overlap: int):
    with pytest.raises(ValueError, match="overlap"):
        Chunking(100, overlap)
