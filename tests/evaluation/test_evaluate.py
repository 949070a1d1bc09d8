"""Engines with known scores, and the reuse of stored results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from audio_files import encode
from small_engines import FunctionEngine, random_mask, real_mask
from voiced_songs import RATE, model_of, plain_usdr, tracks_of, voice, write_song, write_stems

from bsmamba2.errors import BsmError
from bsmamba2.evaluation.evaluate import (
    EvaluationFailure,
    Model,
    ModelResults,
    Settings,
    evaluate,
)
from bsmamba2.evaluation.metrics import csdr_frames
from bsmamba2.evaluation.results import ResultStore, TrackResult
from bsmamba2.runtime.engines.base import Spectrum
from bsmamba2.runtime.engines.stft import stft
from bsmamba2.runtime.separation.separator import Separator

BURSTS = [(0.2, 0.8), (1.3, 1.6), (4.0, 5.5)]
DURATION_S = 5.7


def evaluate_all(
    root: Path, *models: Model, **settings: Any
) -> tuple[list[ModelResults], list[EvaluationFailure]]:
    """Evaluates models on the songs in a folder, in which the results are stored too."""
    store = ResultStore(root / "results")
    return evaluate(models, tracks_of(root), Settings(**settings), store)


def run(root: Path, model: Model, lengths_s: Sequence[int] = ()) -> ModelResults:
    (results,), failures = evaluate_all(root, model, lengths_s=lengths_s)
    assert not failures
    return results


def run_one(root: Path, function: Callable[[Spectrum], Any]) -> TrackResult:
    (result,) = run(root, model_of(function)).tracks
    return result


@pytest.fixture
def song(tmp_path: Path) -> dict[str, np.ndarray]:
    return write_song(tmp_path, "song", voice(DURATION_S, BURSTS))


def rest_of(song: dict[str, np.ndarray]) -> np.ndarray:
    return song["drums"] + song["bass"] + song["other"]


# --- engines whose scores are known ---


def test_an_engine_that_keeps_all_scores_as_the_mixture(tmp_path: Path, song: dict):
    scores = run_one(tmp_path, real_mask(1)).stems["vocals"]
    assert scores.usdr == pytest.approx(plain_usdr(song["vocals"], song["mixture"]), abs=1e-4)
    assert scores.mixture_usdr == pytest.approx(scores.usdr, abs=1e-4)
    assert scores.mixture_csdr == pytest.approx(scores.csdr, abs=1e-4)
    assert (scores.frames, scores.dropped) == (5, 2)  # the vocals are silent in two


def test_an_engine_that_keeps_nothing_leaves_the_mixture_as_instrumental(
    tmp_path: Path, song: dict
):
    result = run_one(tmp_path, real_mask(0))
    vocals, rest = result.stems["vocals"], result.stems["instrumental"]
    assert vocals.usdr == pytest.approx(0, abs=1e-6)
    assert vocals.dropped == vocals.frames
    assert math.isnan(vocals.csdr)
    assert rest.usdr == pytest.approx(plain_usdr(rest_of(song), song["mixture"]), abs=1e-4)
    assert (rest.usdr, rest.csdr) == (rest.mixture_usdr, rest.mixture_csdr)


def test_an_ideal_engine_is_near_perfect(tmp_path: Path, song: dict):
    audio = FunctionEngine(real_mask(1)).metadata.model.audio
    samples = np.zeros((2, 6 * RATE), np.float32)
    samples[:, : song["vocals"].shape[1]] = song["vocals"]
    chunks = iter(samples.reshape(2, 6, RATE).swapaxes(0, 1))

    def ideal(spectrum: Spectrum) -> Spectrum:
        target = stft(next(chunks)[None], n_fft=audio.n_fft, hop=audio.hop)
        mixture = spectrum.view(np.complex64)[..., 0]
        mask = np.where(mixture == 0, 0, target / np.where(mixture == 0, 1, mixture))
        return mask.astype(np.complex64).view(np.float32).reshape(spectrum.shape)

    result = run_one(tmp_path, ideal)
    assert result.stems["vocals"].usdr > 60
    assert result.stems["instrumental"].usdr > 60
    assert result.leakage.level_dbfs < -70


def test_scores_are_those_of_the_separated_audio(tmp_path: Path, song: dict):
    result = run_one(tmp_path, random_mask(0.5))
    stems = Separator(FunctionEngine(random_mask(0.5)), overlap_s=0).separate(song["mixture"], RATE)
    references = {"vocals": song["vocals"], "instrumental": rest_of(song)}
    for stem, reference in references.items():
        frames = csdr_frames(reference, stems[stem], RATE)
        assert result.stems[stem].usdr == pytest.approx(
            plain_usdr(reference, stems[stem]), abs=1e-5
        )
        assert result.stems[stem].csdr == pytest.approx(np.nanmedian(frames), abs=1e-5)
    np.testing.assert_allclose(
        result.frames_db, csdr_frames(song["vocals"], stems["vocals"], RATE), atol=1e-5
    )


def test_files_of_any_format_give_the_scores_of_their_samples(tmp_path: Path, song: dict):
    folder = tmp_path / "test" / "song"
    for path in folder.glob("*.wav"):
        values, rate = soundfile.read(path)
        samples = np.round(values * 32767).astype(np.int16)
        soundfile.write(path, samples, rate)
        suffix = ".WAV" if path.stem == "bass" else ".flac"
        other = tmp_path / "other" / "test" / "song" / f"{path.stem}{suffix}"
        other.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(other, samples, rate)
    one, other = (run_one(root, real_mask(0.5)) for root in (tmp_path, tmp_path / "other"))
    assert not other.silent_stems
    assert repr(other) == repr(replace(one, elapsed_s=other.elapsed_s))  # NaN is not itself


def test_files_whose_decoders_yield_other_blocks_are_one_song(tmp_path: Path, song: dict):
    pytest.importorskip("av")
    folder = tmp_path / "test/song"
    expected = run_one(tmp_path, real_mask(0.5))
    soundfile.write(folder / "drums.mp3", song["drums"].T, RATE)
    (folder / "drums.wav").unlink()
    result = run_one(tmp_path, real_mask(0.5))
    assert result.duration_s == expected.duration_s
    assert result.stems["vocals"].usdr == pytest.approx(expected.stems["vocals"].usdr, abs=1e-3)
    encode(folder / "drums.mka", "aac", np.float32(song["drums"][:, :-RATE]).copy())
    (folder / "drums.mp3").unlink()
    _, (failure,) = evaluate_all(tmp_path, model_of(real_mask(0.5)))
    assert (
        failure.error == f"{folder / 'drums.mka'} ends before mixture.wav: export the track again."
    )


def test_leakage_is_the_level_of_the_error_in_silent_seconds(tmp_path: Path, song: dict):
    leakage = run_one(tmp_path, real_mask(0.5)).leakage
    music = rest_of(song)[:, 2 * RATE : 4 * RATE]
    level = 10 * np.log10(np.mean(music**2))
    assert leakage.silent_s == 2
    assert leakage.mixture_dbfs == pytest.approx(level, abs=1e-4)
    assert leakage.level_dbfs == pytest.approx(level + 20 * np.log10(0.5), abs=0.01)


def test_a_voice_without_silence_has_no_leakage(three_songs: Path):
    leakage = run(three_songs, model_of(real_mask(1))).tracks[0].leakage
    assert leakage.silent_s == 0
    assert math.isnan(leakage.level_dbfs)


def test_onsets_have_the_sdr_of_their_samples(tmp_path: Path, song: dict):
    onsets = run_one(tmp_path, random_mask(0.5)).onsets
    stems = Separator(FunctionEngine(random_mask(0.5)), overlap_s=0).separate(song["mixture"], RATE)
    found = [(onset.start_s, round(onset.start_s + onset.duration_s, 9)) for onset in onsets]
    assert found == BURSTS
    for onset, (start, stop) in zip(onsets, BURSTS, strict=True):
        inside = np.s_[:, round(start * RATE) : round(stop * RATE)]
        expected = [plain_usdr(song["vocals"][inside], y[inside])
                    for y in (stems["vocals"], song["mixture"])]  # fmt: skip
        assert [onset.sdr, onset.mixture_sdr] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("files", ["mixture vocals instrumental", "vocals other", "vocals mixture"])
def test_few_files_of_a_song_have_the_scores_of_all(tmp_path: Path, song: dict, files: str):
    rest = rest_of(song)
    signals = song | {"instrumental": rest, "other": rest}
    write_stems(tmp_path / "few/test/song", {name: signals[name].T for name in files.split()})
    result = run_one(tmp_path / "few", random_mask(0.5))
    expected = run_one(tmp_path, random_mask(0.5))
    for stem, scores in expected.stems.items():
        for name, value in asdict(scores).items():
            assert getattr(result.stems[stem], name) == pytest.approx(value, abs=1e-3)
    assert [onset.start_s for onset in result.onsets] == [o.start_s for o in expected.onsets]


def loudness_mask(spectrum: Spectrum) -> Spectrum:
    """A mask that depends on the whole piece, so that its length matters."""
    mask = np.zeros_like(spectrum)
    mask[..., 0] = 1 / (1 + np.abs(spectrum).mean(axis=(1, 2, 3, 4), keepdims=True)[..., 0])
    return mask


@pytest.mark.parametrize("length", [1, 4, 16])
def test_pieces_of_a_length_are_separated_on_their_own(tmp_path: Path, song: dict, length: int):
    model = model_of(loudness_mask)
    (result,) = run(tmp_path, model, lengths_s=[length]).by_length[length]
    n = song["mixture"].shape[1]
    estimate = np.zeros((2, n))
    for start in range(0, n, length * RATE):
        piece = np.zeros((2, length * RATE), np.float32)
        part = song["mixture"][:, start : start + length * RATE]
        piece[:, : part.shape[1]] = part
        alone = Separator(FunctionEngine(loudness_mask, chunk_s=length), overlap_s=0)
        estimate[:, start : start + part.shape[1]] = (
            alone.separate(piece, RATE)["vocals"][:, : part.shape[1]]
        )  # fmt: skip
    expected = plain_usdr(song["vocals"], estimate)
    assert result.stems["vocals"].usdr == pytest.approx(expected, abs=1e-5)
    assert model.engine.shapes[-1][2] == length * 100 + 1  # a piece is never split into chunks


def test_the_engines_own_length_is_not_separated_twice(tmp_path: Path, song: dict):
    model = model_of(real_mask(1))
    results = run(tmp_path, model, lengths_s=[1])
    assert results.by_length[1] == results.tracks
    assert len(model.engine.shapes) == 6


# --- results are kept ---


@pytest.fixture
def three_songs(tmp_path: Path) -> Path:
    for seed, name in enumerate(["a", "b", "c"]):
        write_song(tmp_path, name, voice(1, [(0, 1)], level=0.1 + 0.05 * seed), seed=seed)
    return tmp_path


def lose_one(root: Path) -> None:
    (gone,) = (root / "results").glob("b.*.json")
    gone.unlink()


def damage_all(root: Path) -> None:
    for number, path in enumerate(sorted((root / "results").glob("*.json"))):
        path.write_text(["", "{}", path.read_text()[:-20]][number])


def change_a_byte(root: Path) -> None:
    bass = root / "test" / "b" / "bass.wav"
    audio = bytearray(bass.read_bytes())
    audio[1000] ^= 1
    bass.write_bytes(audio)


@pytest.mark.parametrize(("change", "name", "computed"), [
    (lose_one, "engine", 1), (damage_all, "engine", 3), (change_a_byte, "engine", 1),
    (lambda root: None, "engine", 0), (lambda root: None, "other", 3),
])  # fmt: skip
def test_only_what_is_missing_is_computed(
    three_songs: Path, change: Callable[[Path], None], name: str, computed: int
):
    first = run(three_songs, model_of(real_mask(0.5)))
    change(three_songs)
    again = model_of(real_mask(0.5), name)
    results = run(three_songs, again)
    assert len(again.engine.shapes) == computed
    for one, other in zip(first.tracks, results.tracks, strict=True):
        assert one.track == other.track
        assert one.stems["vocals"].usdr == pytest.approx(other.stems["vocals"].usdr, abs=1e-3)


def test_results_survive_json_with_nan_and_infinity(three_songs: Path):
    result = run(three_songs, model_of(real_mask(0))).tracks[0]
    text = result.to_json()
    assert repr(TrackResult.from_json(text)) == repr(result)  # NaN is not itself
    assert "NaN" in text


# --- failures ---


@pytest.mark.parametrize("damage", ["missing", "truncated", "mono", "short", "long"])
def test_a_failing_track_does_not_affect_the_others(three_songs: Path, damage: str):
    file = three_songs / "test" / "b" / "bass.wav"
    if damage == "missing":
        file.unlink()
        (file := file.with_name("mixture.wav")).unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:100_000])
    else:
        n, channels = {"mono": (RATE, 1), "short": (RATE - 9, 2), "long": (RATE + 9, 2)}[damage]
        soundfile.write(file, np.zeros((n, channels)), RATE)
    (results,), (failure,) = evaluate_all(three_songs, model_of(real_mask(1)))
    assert [result.track for result in results.tracks] == ["a", "c"]
    assert failure.track == "b"
    assert str(file) in failure.error or f"{file.parent} has no file called" in failure.error


def test_an_engine_that_returns_nan_fails_its_tracks_and_leaves_no_results(three_songs: Path):
    models = model_of(real_mask(math.nan)), model_of(real_mask(1), name="good")
    results, failures = evaluate_all(three_songs, *models)
    assert [len(r.tracks) for r in results] == [0, 3]
    assert [failure.model for failure in failures] == ["engine"] * 3
    assert len(list((three_songs / "results").iterdir())) == 3


def test_a_target_that_is_not_a_stem_is_refused(three_songs: Path):
    with pytest.raises(BsmError, match="estimates 'vocals'"):
        evaluate_all(three_songs, model_of(real_mask(1)), stems=("piano", "bass"))


def test_progress_reaches_the_end_and_never_goes_back(three_songs: Path):
    told: list[tuple[float, float]] = []
    evaluate(
        [model_of(real_mask(1))],
        tracks_of(three_songs),
        Settings(lengths_s=[2]),
        ResultStore(three_songs / "results"),
        lambda title, done, total: told.append((done, total)),
    )
    done = [seconds for seconds, _ in told]
    assert done == sorted(done)
    assert told[-1] == (6, 6)
