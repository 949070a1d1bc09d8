"""The loss against its formula, written out; the mask product against the runtime's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import random_network
from numpy.typing import NDArray

from bsmamba2.config.file import load_config
from bsmamba2.config.training import LossConfig
from bsmamba2.models.estimation import estimate_target
from bsmamba2.runtime.engines.stft import istft, stft
from bsmamba2.training import loss as loss_module
from bsmamba2.training.loss import separation_loss

PAPER = load_config("bsmamba2").loss
SHORT = LossConfig(waveform_weight=2.0, stft_windows=(64, 16), stft_hop=10, stft_min_n_fft=32)


def formula(y: NDArray[np.float64], s: NDArray[np.float64], loss: LossConfig) -> float:
    """weight * mean|y - s| + sum over windows of mean|STFT(y) - STFT(s)|, frame by frame."""
    value = loss.waveform_weight * np.abs(y - s).mean()
    for window in loss.stft_windows:
        n_fft = max(window, loss.stft_min_n_fft)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        left = (n_fft - window) // 2
        hann = np.pad(hann, (left, n_fft - window - left))
        magnitudes = []
        for pair in np.stack([y, s], axis=2).reshape(-1, 2, y.shape[-1]):
            padded = [np.pad(x, n_fft // 2, mode="reflect") for x in pair]
            for start in range(0, y.shape[-1] + 1, loss.stft_hop):
                a, b = (np.fft.rfft(x[start : start + n_fft] * hann) for x in padded)
                magnitudes.append(np.abs(a - b))
        value += np.mean(magnitudes)
    return float(value)


def signals(length: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    y, s = (torch.from_numpy(rng.normal(size=(2, 2, length))) for _ in range(2))
    return y.requires_grad_(), s


@pytest.mark.parametrize(
    ("loss", "length"), [(PAPER, 8820), (PAPER, 5000), (SHORT, 200), (SHORT, 213), (SHORT, 33)]
)
def test_loss_is_the_formula(loss, length):
    y, s = signals(length)
    expected = formula(y.detach().numpy(), s.numpy(), loss)
    terms = separation_loss(y, s, loss)
    assert terms.total.item() == pytest.approx(expected, rel=1e-12)
    parts = loss.waveform_weight * terms.waveform + terms.spectral
    assert parts.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("length", [200, 213, 33])
def test_gradient_is_the_slope_of_the_loss(length):
    y, s = signals(length)

    def scaled(y: torch.Tensor) -> torch.Tensor:
        return 3 * separation_loss(y, s, SHORT).total

    assert torch.autograd.gradcheck(scaled, y, fast_mode=True)  # along a random direction


def test_gradient_of_the_paper_is_autograds_through_torch_stft():
    y, s = signals(6000)
    direct = PAPER.waveform_weight * (y - s).abs().mean()
    for window in PAPER.stft_windows:
        spectra = [
            torch.stft(
                x.flatten(0, 1),
                max(window, 2048),
                PAPER.stft_hop,
                win_length=window,
                window=torch.hann_window(window, dtype=torch.float64),
                return_complex=True,
            )
            for x in (y, s)
        ]
        direct = direct + (spectra[0] - spectra[1]).abs().mean()
    (expected,) = torch.autograd.grad(direct, y)
    (gradient,) = torch.autograd.grad(separation_loss(y, s, PAPER).total, y)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-15)


def test_blocks_change_nothing(monkeypatch):
    y, s = signals(2000)
    whole = separation_loss(y, s, SHORT).total
    (expected,) = torch.autograd.grad(whole, y)
    monkeypatch.setattr(loss_module, "_BLOCK_BINS", {"cpu": 1})  # one frame a block
    total = separation_loss(y, s, SHORT).total
    (gradient,) = torch.autograd.grad(total, y)
    torch.testing.assert_close((total, gradient), (whole, expected), rtol=1e-12, atol=1e-15)


def test_a_perfect_estimate_has_no_loss_and_no_gradient():
    y, _ = signals(500)
    total = separation_loss(y, y.detach(), SHORT).total
    total.backward()
    assert total.item() == 0
    assert not y.grad.any()


def test_low_precision_and_autocast_do_not_reach_the_loss():
    y, s = (x.detach().float() for x in signals(500))
    with torch.autocast("cpu", torch.bfloat16):
        terms = separation_loss(y.bfloat16(), s, SHORT)
    exact = separation_loss(y.bfloat16().float(), s, SHORT)
    assert terms.total.dtype == torch.float32
    assert terms.total.item() == exact.total.item()


def test_estimate_is_the_runtimes_mask_product():
    network = random_network(dtype=torch.float32)
    audio = network.model.audio
    rng = np.random.default_rng(0)
    mixture = rng.normal(size=(2, 2, 10 * audio.hop)).astype(np.float32)
    with torch.no_grad():
        estimate = estimate_target(network, torch.from_numpy(mixture), audio)
        spectrum = stft(mixture, n_fft=audio.n_fft, hop=audio.hop)
        view = spectrum.view(np.float32).reshape(*spectrum.shape, 2)
        mask = network(torch.from_numpy(view)).contiguous().numpy().view(np.complex64)[..., 0]
    expected = istft(mask * spectrum, n_fft=audio.n_fft, hop=audio.hop, length=mixture.shape[-1])
    error = np.abs(estimate.numpy() - expected).max() / np.abs(expected).max()
    assert error < 1e-5
