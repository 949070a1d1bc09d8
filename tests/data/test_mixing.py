"""Laws of training mixtures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from noise_songs import AUDIO, DATA, RATE, STEMS, data_config, noise, place, write, write_song
from scipy import stats
from torch.utils.data import DataLoader

from bsmamba2.config.training import DataConfig
from bsmamba2.data.mixing import TrainingBatch, TrainingMixtures, collate
from bsmamba2.data.salience import find_salient
from bsmamba2.data.tracks import find_tracks
from bsmamba2.errors import DataError

AUGMENTED = {"swap_probability": 0.5, "polarity_probability": 0.5, "eq_probability": 0.5}


def mixtures(root: Path, data: DataConfig = DATA, seed: int = 7) -> TrainingMixtures:
    salience = find_salient(find_tracks(root, "train", data).tracks, data, AUDIO)
    return TrainingMixtures(salience, data, AUDIO, seed=seed)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three songs of white noise; no test changes their files."""
    root = tmp_path_factory.mktemp("songs")
    for number in range(3):
        write_song(root / "train" / f"song {number}", 4 + number, number)
    return root


@pytest.fixture
def fragile(tmp_path: Path) -> Path:
    """Two songs that a test may damage."""
    for number in range(2):
        write_song(tmp_path / "train" / f"song {number}", 4, number)
    return tmp_path


def assert_same(one: TrainingBatch, other: TrainingBatch) -> None:
    assert torch.equal(one.mixture, other.mixture)
    assert torch.equal(one.target, other.target)
    assert one[2:] == other[2:]


def sounding(item: TrainingBatch, root: Path) -> dict[str, np.ndarray]:
    """Stem -> its file's samples at the position that the item names, float32 (2, samples)."""
    found = {}
    for source in item.sources:
        path, start = place(source, root)
        samples, _ = soundfile.read(path, frames=RATE, start=start, dtype="float32")
        found[path.stem] = samples.T
    return found


def gains(item: TrainingBatch, root: Path) -> dict[str, float]:
    """Stem -> its gain in the mixture, by least squares."""
    stems = sounding(item, root)
    if not stems:
        return {}
    matrix = np.stack([samples[:, :500].ravel() for samples in stems.values()], axis=1)
    values = np.linalg.lstsq(matrix, item.mixture[:, :500].numpy().ravel(), rcond=None)[0]
    return dict(zip(stems, map(float, values), strict=True))


def test_an_item_is_a_function_of_seed_and_index(songs: Path) -> None:
    one, other = mixtures(songs), mixtures(songs)
    backwards = {index: other[index] for index in reversed(range(20))}
    for index in range(20):
        assert_same(one[index], backwards[index])
    assert_same(one[10**9], other[10**9])


def test_songs_in_flac_give_the_items_of_songs_in_wav(songs: Path, tmp_path: Path) -> None:
    for path in songs.glob("train/*/*.wav"):
        samples, rate = soundfile.read(path, dtype="int16")
        copy = tmp_path / path.relative_to(songs).with_suffix(".flac")
        copy.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(copy, samples, rate)
    one, other = mixtures(songs), mixtures(tmp_path)
    for index in range(20):
        assert_same(one[index], other[index])


def test_items_of_other_seeds_and_indices_are_others(songs: Path) -> None:
    items = [mixtures(songs, seed=seed)[index] for seed in range(4) for index in range(10)]
    sums = {float(item.mixture.abs().sum()) for item in items}
    assert len(sums) == len(items)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("augmented", [{}, AUGMENTED])
def test_any_number_of_workers_gives_the_same_items(
    songs: Path, workers: int, augmented: dict[str, float]
) -> None:
    items = mixtures(songs, data_config(**augmented))
    loader = DataLoader(
        items, sampler=range(100, 112), batch_size=4, num_workers=workers, collate_fn=collate
    )
    batches = list(loader)
    assert len(batches) == 3
    for number, batch in enumerate(batches):
        expected = collate([items[100 + 4 * number + i] for i in range(4)])
        assert torch.equal(batch.mixture, expected.mixture)
        assert torch.equal(batch.target, expected.target)
        assert batch[2:] == expected[2:]


def test_the_mixture_is_the_sum_of_the_scaled_stems(songs: Path) -> None:
    items = mixtures(songs)
    for index in range(50):
        item = items[index]
        stems, found = sounding(item, songs), gains(item, songs)
        total = sum((found[stem] * samples for stem, samples in stems.items()), np.zeros((2, RATE)))
        np.testing.assert_allclose(item.mixture.numpy(), total, atol=1e-5)
        target = found.get("vocals", 0) * stems.get("vocals", np.zeros((2, RATE)))
        np.testing.assert_allclose(item.target.numpy(), target, atol=1e-5)


def test_items_are_float32_and_one_chunk_long(songs: Path) -> None:
    items = mixtures(songs)
    batch = collate([items[index] for index in range(3)])
    for tensor in (batch.mixture, batch.target):
        assert tensor.dtype == torch.float32
        assert tensor.shape == (3, 2, RATE)
        assert tensor.is_contiguous()
    assert batch.sources == tuple(s for index in range(3) for s in items[index].sources)


def test_silence_gains_tracks_and_places_have_their_distributions(songs: Path) -> None:
    items = mixtures(songs)
    drawn = [items[index] for index in range(1200)]
    count = len(drawn) * len(STEMS)
    silent = count - sum(len(item.sources) for item in drawn)
    assert silent == pytest.approx(0.1 * count, abs=3 * np.sqrt(count * 0.09))
    values = [gain for item in drawn for gain in gains(item, songs).values()]
    assert stats.kstest(values, stats.uniform(0.5, 1).cdf).pvalue > 0.01
    tracks = [[source.split("/")[0] for source in item.sources] for item in drawn]
    counts = np.unique([name for names in tracks for name in names], return_counts=True)[1]
    assert stats.chisquare(counts).pvalue > 0.01
    full = [names for names in tracks if len(names) == len(STEMS)]
    pairs = [names[i] == names[j] for names in full for i in range(4) for j in range(i)]
    assert np.mean(pairs) == pytest.approx(1 / 3, abs=0.02)  # independent of each other
    starts = {place(source, songs)[1] for item in drawn for source in item.sources}
    assert starts == set(range(0, 5 * RATE + 1, RATE // 2))  # every window of the longest song


def test_a_stem_is_drawn_only_where_it_sounds(tmp_path: Path) -> None:
    first, second = (write_song(tmp_path / "train" / f"s{i}", 4, i) for i in range(2))
    write(first.stem("vocals"), np.zeros((4 * RATE, 2)))
    late = noise(4, 0)
    late[: 2 * RATE] = 0
    write(second.stem("vocals"), late)
    items = mixtures(tmp_path, data_config(silent_probability=0.0))
    vocals = {items[index].sources[0] for index in range(60)}
    assert vocals == {f"s1/vocals@{start:.3f}" for start in (2, 2.5, 3)}
    assert {items[index].sources[1].split("/")[0] for index in range(60)} == {"s0", "s1"}


def test_a_coherent_item_is_one_place_of_one_song(songs: Path) -> None:
    data = data_config(coherent_probability=0.5, silent_probability=0.0, gain=(1.0, 1.0))
    items = mixtures(songs, data)
    coherent = 0
    for index in range(200):
        item = items[index]
        places = {
            tuple(source.split(f"/{stem}@"))
            for source, stem in zip(item.sources, STEMS, strict=True)
        }
        if len(places) > 1:
            continue
        coherent += 1
        path, start = place(item.sources[0], songs)
        song, _ = soundfile.read(path.with_name("mixture.wav"), frames=RATE, start=start)
        np.testing.assert_allclose(item.mixture.numpy(), song.T, atol=1e-4)
    assert coherent == pytest.approx(100, abs=3 * np.sqrt(200 * 0.25))


def test_a_coherent_item_is_augmented_as_a_whole(songs: Path) -> None:
    together = {"coherent_probability": 1.0, "silent_probability": 0.0, "gain": (1.0, 1.0)}
    item = mixtures(songs, data_config(**together, swap_probability=1.0))[0]
    plain = mixtures(songs, data_config(**together))[0]
    assert torch.equal(item.mixture, plain.mixture.flip(0))
    halves = mixtures(songs, data_config(**together, swap_probability=0.5))
    plains = mixtures(songs, data_config(**together))
    swapped = 0
    for index in range(20):  # never one stem without the others
        item, plain = halves[index], plains[index]
        swap = torch.equal(item.target, plain.target.flip(0))
        assert torch.equal(item.mixture, plain.mixture.flip(0) if swap else plain.mixture)
        swapped += swap
    assert 0 < swapped < 20


@pytest.mark.parametrize("name", [*AUGMENTED, "pitch_probability"])
def test_an_augmented_target_is_what_the_mixture_holds(songs: Path, name: str) -> None:
    if name.startswith("pitch"):
        pytest.importorskip("python_stretch")
    changes = {"stems": ("vocals",), "silent_probability": 0.0, name: 1.0}
    items = mixtures(songs, data_config(**changes))
    plain = mixtures(songs, data_config(stems=("vocals",), silent_probability=0.0))
    for index in range(5):
        item = items[index]
        assert torch.equal(item.mixture, item.target)
        assert item.sources == plain[index].sources  # the draws do not depend on it
        assert not torch.equal(item.target, plain[index].target)


def test_a_song_shorter_than_a_chunk_ends_in_zeros(tmp_path: Path) -> None:
    write_song(tmp_path / "train" / "short", 0.75, 0)
    item = mixtures(tmp_path, data_config(silent_probability=0.0))[0]
    assert item.sources[0] == "short/vocals@0.000"
    assert item.mixture.shape == (2, RATE)
    assert item.mixture[:, : 3 * RATE // 4].abs().min(dim=1).values.max() < 1
    assert item.mixture[:, : 3 * RATE // 4].abs().sum() > 0
    assert not item.mixture[:, 3 * RATE // 4 :].any()


def test_a_file_that_breaks_is_skipped_counted_and_changes_nothing_else(fragile: Path) -> None:
    items = mixtures(fragile)
    before = [items[index] for index in range(60)]
    broken = fragile / "train" / "song 1" / "drums.wav"
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2 + 100])  # as a copy that was cut short
    skipped = 0
    for index, old in enumerate(before):
        new = items[index]
        late = [s for s in old.sources if s.startswith("song 1/drums@") and float(s[13:]) > 1]
        assert bool(new.unreadable) == bool(late)
        if not late:
            assert_same(new, old)
            continue
        skipped += len(new.unreadable)
        assert all(str(broken) in sentence for sentence in new.unreadable)
        assert set(old.sources) - set(new.sources) == set(late)  # the other stems stay
        assert len(new.sources) == len(old.sources)
        assert_same(new, items[index])
    assert skipped > 5


def test_a_stem_that_cannot_be_read_anywhere_is_silent(fragile: Path) -> None:
    items = mixtures(fragile, data_config(silent_probability=0.0))
    for path in fragile.rglob("vocals.wav"):
        path.write_bytes(b"no audio")
    item = items[0]
    assert not item.target.any()
    assert item.mixture.any()
    assert [source.split("/")[1].split("@")[0] for source in item.sources] == [*STEMS[1:]]
    assert len(item.unreadable) > 1


def test_a_file_that_became_mono_is_skipped(fragile: Path) -> None:
    items = mixtures(fragile, data_config(silent_probability=0.0))
    write(fragile / "train" / "song 0" / "bass.wav", noise(4, 0)[:, :1])
    drawn = [items[index] for index in range(20)]
    sentences = {sentence for item in drawn for sentence in item.unreadable}
    assert len(sentences) == 1
    assert "1 channel" in sentences.pop()
    assert all(len(item.sources) == len(STEMS) for item in drawn)


def test_a_target_that_is_not_a_stem_is_an_error(songs: Path) -> None:
    with pytest.raises(DataError, match=r"audio\.target 'vocals' is not one of"):
        mixtures(songs, data_config(stems=("drums", "bass")))
