"""BSMamba2: the mixture's spectrum in, the complex mask of the target stem out.

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
    """The network as it is trained; `bsmamba2.models.folded` is its equal for inference."""

    def __init__(self, model: ModelConfig, *, checkpoint_gradients: bool = False) -> None:
        """Makes a network with initial weights.

        Args:
            model: Sizes of spectrum and network.
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
        """The complex mask, in the real view, of the spectrum's shape.

        Args:
            spectrum: (batch, channels, frames, bins, 2), real and imaginary part last.
        """
        x_BTKD = self.band_split(spectrum_features(spectrum))
        for layer in self.layers:
            x_BTKD = layer(x_BTKD)
        features = self.mask_estimators[0](self.final_norm(x_BTKD))
        # The mask is complex arithmetic from here on: never less than float32.
        if features.itemsize < 4:
            features = features.float()
        return mask_spectrum(features, self.model.audio.channels)
