"""Networks that others would use instead, as published; imports only the standard library.

Their weights are random: only the packages are downloaded, and no time depends on the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SEQUENTIAL = "sequential-scan"
"""A peer that runs in this project's own environment."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A network of another package."""

    requirement: str
    """Requirement for pip."""
    module: str
    network: str
    """Class in the module."""
    arguments: dict[str, Any]
    """Arguments of the class."""
    configuration: str
    """The arguments in words, with their source."""
    stems: tuple[str, ...]
    chunk_s: float | None = None
    """Seconds of audio that it always takes; None if it takes any length."""
    sample_rate: int = 44_100


_ROFORMER = {
    "dim": 384,
    "depth": 6,
    "stereo": True,
    "time_transformer_depth": 1,
    "freq_transformer_depth": 1,
    "dim_head": 64,
    "heads": 8,
    "stft_hop_length": 441,
}
PEERS = {
    "bs-roformer": Peer(
        requirement="bs-roformer==1.2.4",
        module="bs_roformer",
        network="BSRoformer",
        arguments=_ROFORMER | {"num_residual_streams": 1},
        configuration="dim 384, depth 6, 8 heads of 64, 62 bands, hop 441, as published "
        "(arXiv 2309.02612, L = 6); one residual stream, as in the paper",
        stems=("vocals",),
    ),
    "bs-roformer-4-streams": Peer(
        requirement="bs-roformer==1.2.4",
        module="bs_roformer",
        network="BSRoformer",
        arguments=_ROFORMER,
        configuration="as bs-roformer, with the package's default of four residual streams "
        "(hyper-connections), which the paper does not have",
        stems=("vocals",),
    ),
    "htdemucs": Peer(
        requirement="demucs==4.1.0",
        module="demucs.htdemucs",
        network="HTDemucs",
        arguments={
            "sources": ["drums", "bass", "other", "vocals"],
            "bottom_channels": 512,
            "dconv_mode": 3,
            "t_layers": 5,
            "segment": 7.8,
        },
        configuration="channels 48, depth 4, 5 transformer layers of 512, as published "
        "(arXiv 2211.08553); one pass without shifts",
        stems=("drums", "bass", "other", "vocals"),
        chunk_s=7.8,
    ),
}
NAMES = (*PEERS, SEQUENTIAL)
