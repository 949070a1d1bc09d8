"""BSMamba2: maps a mixture's spectrum to the complex mask of the target stem.

Kim and Choi, "Mamba2 Meets Silence", arXiv 2508.14556, section 3. Tensors are named and laid out
as in the published checkpoints (`bsmamba2.formats.tensors`).
"""

from __future__ import annotations

from torch import Tensor, nn

from bsmamba2.config.model import ModelConfig
from bsmamba2.models.bands import BandSplit, UnitNorm, mask_spectrum, spectrum_features
from bsmamba2.models.dual_path import DualPathLayer
from bsmamba2.models.masks import MaskEstimator


class BSMamba2(nn.Module):
    """The network as it is trained; `bsmamba2.models.folded` is its equivalent for inference."""

    def __init__(self, model: ModelConfig, *, checkpoint_gradients: bool = False) -> None:
        """Makes a network with initial weights.

        Args:
            model: Configuration of the spectrum and the network.
            checkpoint_gradients: Recompute each block in the backward pass, to save memory.
        """
        super().__init__()
        self.model = model
        self.band_split = BandSplit(model)
        self.layers = nn.ModuleList(
            DualPathLayer(model.network, checkpoint_gradients=checkpoint_gradients)
            for _ in range(model.network.layers)
        )
        self.final_norm = UnitNorm(model.network.d_model)
        self.mask_estimators = nn.ModuleList([MaskEstimator(model)])

    def forward(self, spectrum: Tensor) -> Tensor:
        """Returns the complex mask, as real and imaginary parts, in the shape of the spectrum.

        Args:
            spectrum: (batch, channels, frames, bins, 2), real and imaginary part last.
        """
        x_BTKD = self.band_split(spectrum_features(spectrum))
        for layer in self.layers:
            x_BTKD = layer(x_BTKD)
        features = self.mask_estimators[0](self.final_norm(x_BTKD))
        # The product with the mask is complex, which needs at least float32.
        if features.itemsize < 4:
            features = features.float()
        return mask_spectrum(features, self.model.audio.channels)
