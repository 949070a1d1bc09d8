"""Laws of the audio on which engines are compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import mux
from small_engines import small_metadata
from songs import decoded, excerpt

from bsmamba2.errors import BsmError
from bsmamba2.evaluation.reference_excerpt import fixed_mixture, load_reference_excerpt

AUDIO = small_metadata().model.audio  # chunks of a second


def write(path: Path, samples: np.ndarray, rate: int = 44_100) -> Path:
    soundfile.write(path, samples.T, rate, subtype="FLOAT")
    return path


def noise(seconds: float, level: float, channels: int = 2, rate: int = 44_100) -> np.ndarray:
    shape = (channels, round(seconds * rate))
    return level * np.random.default_rng(0).uniform(-1, 1, shape)


def test_a_song_is_heard_at_its_loudest_chunk(tmp_path: Path):
    song = np.concatenate([noise(1, 0.1), noise(1, 0.5), noise(1.5, 0.2)], axis=1)
    heard = load_reference_excerpt(write(tmp_path / "song.wav", song), AUDIO)
    assert heard.name == "the loudest 1 s of song.wav"
    assert np.array_equal(heard.mixture, song[:, 44_100:88_200].astype(np.float32))
    assert np.array_equal(heard.chunks, heard.mixture[None])
    assert heard.voice is None


def test_mono_and_other_rates_become_the_engines(tmp_path: Path):
    path = write(tmp_path / "mono.wav", noise(2, 0.5, channels=1, rate=22_050), 22_050)
    heard = load_reference_excerpt(path, AUDIO)
    assert heard.mixture.shape == (2, 44_100)
    assert np.array_equal(heard.mixture[0], heard.mixture[1])
    mono = load_reference_excerpt(
        write(tmp_path / "stereo.wav", noise(1, 0.5)), replace(AUDIO, channels=1)
    )
    assert mono.mixture.shape == (1, 44_100)


def test_a_short_song_ends_in_zeros(tmp_path: Path):
    heard = load_reference_excerpt(write(tmp_path / "short.wav", noise(0.25, 0.5)), AUDIO)
    assert heard.mixture.shape == (2, 11_025)
    assert heard.chunks.shape == (1, 2, 44_100)
    assert not heard.chunks[..., 11_025:].any()


@pytest.mark.parametrize(
    ("name", "samples", "words"),
    [
        ("silent.wav", np.zeros((2, 44_100)), "is silent"),
        ("whisper.wav", noise(1, 1e-6), "is silent"),
        ("click.wav", noise(0.01, 0.5), "shorter than one STFT window"),
        ("absent.wav", None, "No such file"),
    ],
)
def test_useless_songs_are_refused(
    tmp_path: Path, name: str, samples: np.ndarray | None, words: str
):
    if samples is not None:
        write(tmp_path / name, samples)
    with pytest.raises(BsmError, match=r"\A[^\n]+\Z") as error:
        load_reference_excerpt(tmp_path / name, AUDIO)
    assert words in str(error.value)


def test_made_up_mixture_is_fixed_loud_and_a_chunk_long():
    """Holds even if the excerpt of real music is installed."""
    heard = load_reference_excerpt(None, AUDIO)
    assert (heard.name, heard.voice) == ("a made-up mixture", None)
    assert heard.mixture.shape == (2, AUDIO.chunk_samples)
    assert np.array_equal(heard.mixture, fixed_mixture(AUDIO, AUDIO.chunk_samples))
    assert 0.05 < np.sqrt(np.mean(heard.mixture**2)) < 0.5


def stems(path: Path, tracks: list[np.ndarray]) -> Path:
    """Writes a stem file with lossless tracks."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format="mp4") as container:
        sounds = [container.add_stream("alac", rate=44_100, layout="stereo") for _ in tracks]
        for sound, samples in zip(sounds, tracks, strict=True):
            mux(container, sound, samples)
    return path


def test_voice_of_a_stem_file_is_that_of_the_loudest_chunk(tmp_path: Path):
    mixture = np.concatenate([noise(1, 0.1), noise(1, 0.5), noise(0.5, 0.2)], axis=1)
    tracks = [mixture.astype(np.float32) * scale for scale in (1, 0.1, 0.2, 0.3, 0.5)]
    path = stems(tmp_path / "song.stem.mp4", tracks)
    heard = load_reference_excerpt(path, AUDIO)
    assert heard.name == "the loudest 1 s of song.stem.mp4 and its voice"
    assert np.allclose(heard.mixture, mixture[:, 44_100:88_200], atol=1e-4)
    assert heard.voice is not None
    assert np.allclose(heard.voice, heard.mixture / 2, atol=1e-4)
    assert load_reference_excerpt(path, replace(AUDIO, target="drums")).voice is None


def test_a_silent_voice_is_no_reference(tmp_path: Path):
    tracks = [noise(1, 0.5).astype(np.float32)] * 4 + [np.zeros((2, 44_100), np.float32)]
    heard = load_reference_excerpt(stems(tmp_path / "song.stem.mp4", tracks), AUDIO)
    assert (heard.name, heard.voice) == ("the loudest 1 s of song.stem.mp4", None)


@pytest.mark.parametrize(
    ("tracks", "words"),
    [
        ([noise(1, 0.5)] * 2, "has no audio track 5"),
        ([noise(1, 0.5)] * 4 + [noise(0.5, 0.5)], "end before its mixture"),
    ],
)
def test_stem_files_without_a_whole_voice_are_refused(
    tmp_path: Path, tracks: list[np.ndarray], words: str
):
    with pytest.raises(BsmError, match=words):
        load_reference_excerpt(
            stems(tmp_path / "song.stem.mp4", [t.astype(np.float32) for t in tracks]), AUDIO
        )


def test_the_real_excerpt_is_heard_with_its_voice():
    song = excerpt()
    heard = load_reference_excerpt(song, replace(AUDIO, chunk_s=8))
    assert heard.voice is not None
    assert np.array_equal(heard.mixture.T, decoded(song))
    assert np.array_equal(heard.voice.T, decoded(song, stream=4))
