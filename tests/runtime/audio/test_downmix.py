"""More than two channels are mixed down to stereo by ITU-R BS.775 if that is wanted."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import RATE, damaged, encode, noise, save

from bsmamba2.errors import AudioError, MissingExtraError
from bsmamba2.runtime.audio.reader import AudioReader, Section

pytest.importorskip("av")

HALF_POWER = np.sqrt(0.5)
TO_STEREO = {  # of FL, FR, FC, LFE, Ls, Rs and so on
    "5.1": [[1, 0, HALF_POWER, 0, HALF_POWER, 0], [0, 1, HALF_POWER, 0, 0, HALF_POWER]],
    "quad": [[1, 0, HALF_POWER, 0], [0, 1, 0, HALF_POWER]],
    "3.0": [[1, 0, HALF_POWER], [0, 1, HALF_POWER]],
    "stereo": np.eye(2),
    "mono": np.eye(1),
}


def mixed(path: Path, section: Section | None = None) -> np.ndarray:
    with AudioReader(path, section=section or Section(), downmix=True) as reader:
        samples = np.concatenate(list(reader.blocks()), axis=1)
        assert reader.frames == samples.shape[1] or not reader.exact
        assert reader.channels == len(samples)
    return samples


def surround(path: Path, layout: str = "5.1", codec: str = "pcm_f32le") -> np.ndarray:
    """Writes noise, which is louder than full scale when mixed down; returns its mixture."""
    matrix = np.array(TO_STEREO[layout])
    samples = noise(channels=matrix.shape[1], level=0.3).clip(-1, 1)
    encode(path, codec, samples, layout)
    return matrix @ samples


@pytest.mark.parametrize("layout", TO_STEREO)
def test_surround_is_mixed_with_the_itu_coefficients(tmp_path: Path, layout: str):
    expected = surround(tmp_path / "a.wav", layout)
    assert np.abs(mixed(tmp_path / "a.wav") - expected).max() < 1e-4  # FFmpeg rounds to 0.7071


@pytest.mark.parametrize(("name", "codec", "tolerance"),
                         [("a.wav", "pcm_s16le", 1e-3), ("a.wav", "pcm_s24le", 1e-4),
                          ("a.flac", "flac", 1e-3), ("a.m4a", "alac", 1e-3)])  # fmt: skip
def test_every_format_is_mixed_without_normalisation(
    tmp_path: Path, name: str, codec: str, tolerance: float
):
    expected = surround(tmp_path / name, codec=codec)
    assert np.abs(expected).max() > 1.2
    assert np.abs(mixed(tmp_path / name) - expected).max() < tolerance
    part = mixed(tmp_path / name, Section(1.1, 0.3))
    start = round(1.1 * RATE)
    assert np.array_equal(part, mixed(tmp_path / name)[:, start : start + part.shape[1]])


@pytest.mark.parametrize(("channel", "left", "right"),
                         [(0, 1, 0), (1, 0, 1), (2, HALF_POWER, HALF_POWER), (3, 0, 0),
                          (4, HALF_POWER, 0), (5, 0, HALF_POWER)])  # fmt: skip
def test_each_loudspeaker_of_an_aac_keeps_its_place(
    tmp_path: Path, channel: int, left: float, right: float
):
    one = np.zeros((6, RATE), np.float32)
    one[channel] = 0.5 * np.sin(2 * np.pi * 60 * np.arange(RATE) / RATE)  # low enough for LFE
    encode(tmp_path / "a.m4a", "aac", one, "5.1")
    found = np.abs(mixed(tmp_path / "a.m4a")[:, RATE // 2 :]).max(axis=1)
    assert np.allclose(found, [0.5 * left, 0.5 * right], atol=0.02)


def test_without_the_option_surround_is_refused_by_its_name(tmp_path: Path):
    surround(tmp_path / "a.wav")
    with pytest.raises(AudioError, match=r"6 channels, .*'bsm infer --downmix'"):
        AudioReader(tmp_path / "a.wav")


def test_mono_and_stereo_are_read_as_without_the_option(tmp_path: Path):
    for channels in (1, 2):
        path = save(tmp_path / "a.wav", noise(channels=channels))
        assert np.array_equal(mixed(path), noise(channels=channels))


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_truncated_surround_is_refused(tmp_path: Path, name: str):
    path = save(tmp_path / name, noise(channels=6))
    with pytest.raises(AudioError, match="truncated"):
        mixed(damaged(path, cut=0.8))


def test_surround_of_unknown_length_is_mixed_to_its_end(tmp_path: Path):
    path = save(tmp_path / "a.wav", noise(channels=6))
    expected = mixed(path)
    content = path.read_bytes()
    at = content.find(b"data") + 4
    path.write_bytes(content[:at] + struct.pack("<I", 0x7FFFF000) + content[at + 4 :])
    assert np.array_equal(mixed(path), expected)


@pytest.mark.parametrize("channels", [3, 4, 9, 16])
def test_channels_of_unknown_places_are_refused(tmp_path: Path, channels: int):
    soundfile.write(tmp_path / "a.wav", noise(channels=channels).T, RATE)
    with pytest.raises(AudioError, match=f"{channels} channels and does not say"):
        mixed(tmp_path / "a.wav")


def test_without_pyav_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    surround(tmp_path / "a.wav")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"^Mixing down .*bsmamba2\[av\]"):
        mixed(tmp_path / "a.wav")
