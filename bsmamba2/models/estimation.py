"""Estimates the target in mixtures, with gradients: STFT, network, mask product, inverse STFT.

`bsmamba2.runtime.engines.estimation` does the same for engines, on NumPy arrays.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bsmamba2.config.model import AudioConfig


def estimate_target(
    network: nn.Module, mixture: Tensor, audio: AudioConfig, *, precision: str = "float32"
) -> Tensor:
    """Estimates the target stem of mixtures.

    Args:
        network: Maps a spectrum, as real and imaginary parts, to a mask of the same shape.
        mixture: (batch, channels, n) float32, n a multiple of the hop.
        audio: Window and hop.
        precision: "bf16" runs the network under autocast; the transforms are always float32.

    Returns:
        (batch, channels, n) float32.
    """
    batch, channels, length = mixture.shape
    window = torch.hann_window(audio.n_fft, device=mixture.device)
    spectrum_NFT = torch.stft(
        mixture.flatten(0, 1),
        audio.n_fft,
        audio.hop,
        window=window,
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    spectrum_BCTF = spectrum_NFT.unflatten(0, (batch, channels)).mT
    with torch.autocast(mixture.device.type, torch.bfloat16, enabled=precision == "bf16"):
        mask = network(torch.view_as_real(spectrum_BCTF).contiguous())
    mask_BCTF = torch.view_as_complex(mask.float().contiguous())
    estimate_NFT = (mask_BCTF * spectrum_BCTF).flatten(0, 1).mT
    samples = torch.istft(estimate_NFT, audio.n_fft, audio.hop, window=window, length=length)
    return samples.view(batch, channels, length)
