"""The transforms equal torch's, for NumPy and CuPy arrays, in the array's precision."""

from __future__ import annotations

import numpy as np
import pytest

from bsmamba2.runtime.engines.stft import istft, stft

torch = pytest.importorskip("torch")

TOLERANCE = {"float32": 1e-6, "float64": 1e-14}  # of the peak
SIZES = [(2048, 441), (2048, 512), (2048, 1024), (64, 10), (64, 32)]


def noise(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def torch_window(n_fft: int, dtype: str) -> object:
    return torch.hann_window(n_fft, dtype=getattr(torch, dtype))


def relative(difference: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(difference).max() / np.abs(reference).max())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("n_fft", "hop"), SIZES)
@pytest.mark.parametrize("extra", [1, 2, 440, 441, 442, 9999])
def test_stft_is_torch_stft(n_fft: int, hop: int, extra: int, dtype: str):
    samples = noise(2, n_fft // 2 + extra, dtype=dtype)
    expected = torch.stft(
        torch.from_numpy(samples), n_fft, hop, window=torch_window(n_fft, dtype),
        return_complex=True,
    ).numpy().transpose(0, 2, 1)  # fmt: skip
    spectrum = stft(samples, n_fft=n_fft, hop=hop)
    assert spectrum.shape == expected.shape
    assert spectrum.dtype == expected.dtype
    assert relative(spectrum - expected, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("n_fft", "hop"), SIZES[:2] + SIZES[3:4])
@pytest.mark.parametrize("extra", [1, 441, 9999])
def test_istft_of_any_spectrum_is_torch_istft(n_fft: int, hop: int, extra: int, dtype: str):
    length = n_fft // 2 + extra
    spectrum = stft(noise(2, length, dtype=dtype), n_fft=n_fft, hop=hop)
    spectrum = (spectrum * noise(*spectrum.shape, dtype=dtype)).astype(spectrum.dtype)
    expected = torch.istft(
        torch.from_numpy(spectrum.transpose(0, 2, 1).copy()), n_fft, hop,
        window=torch_window(n_fft, dtype), length=length,
    ).numpy()  # fmt: skip
    samples = istft(spectrum, n_fft=n_fft, hop=hop, length=length)
    assert samples.shape == (2, length)
    assert samples.dtype == dtype
    # Where the last frame's window is nearly 0, both divide by it, rounding errors included.
    inner = slice(0, (length // hop) * hop)
    assert relative((samples - expected)[:, inner], expected[:, inner]) < 2 * TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(352800,), (1, 5000), (3, 2, 44100)])
def test_istft_undoes_stft(shape: tuple[int, ...], dtype: str):
    samples = noise(*shape, dtype=dtype)
    spectrum = stft(samples, n_fft=2048, hop=441)
    back = istft(spectrum, n_fft=2048, hop=441, length=shape[-1])
    assert relative(back - samples, samples) < TOLERANCE[dtype]


def test_the_input_stays_as_it_was():
    samples = noise(2, 5000)
    before = samples.copy()
    spectrum = stft(samples, n_fft=2048, hop=441)
    kept = spectrum.copy()
    istft(spectrum, n_fft=2048, hop=441, length=5000)
    assert np.array_equal(samples, before)
    assert np.array_equal(spectrum, kept)


def test_silence_transforms_to_exact_silence():
    spectrum = stft(np.zeros((2, 44100), np.float32), n_fft=2048, hop=441)
    assert not spectrum.any()
    assert not istft(spectrum, n_fft=2048, hop=441, length=44100).any()


@pytest.mark.parametrize("n", [0, 1, 1024])
def test_too_short_a_signal_is_refused(n: int):
    with pytest.raises(ValueError, match="more than 1024 samples"):
        stft(np.zeros((2, n), np.float32), n_fft=2048, hop=441)


def test_wrong_types_and_shapes_are_refused():
    with pytest.raises(ValueError, match="float"):
        stft(np.zeros(5000, np.int16), n_fft=2048, hop=441)
    spectrum = np.zeros((12, 1025), np.complex64)
    with pytest.raises(ValueError, match="complex"):
        istft(spectrum.real, n_fft=2048, hop=441, length=5000)
    with pytest.raises(ValueError, match="13 frames"):
        istft(spectrum, n_fft=2048, hop=441, length=5292)
    with pytest.raises(ValueError, match="513"):
        istft(spectrum, n_fft=1024, hop=441, length=5000)
