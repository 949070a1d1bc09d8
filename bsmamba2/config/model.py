"""Every setting of the network and of its input.

Nothing here imports torch: the runtime reads the same dataclasses from an engine's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from bsmamba2.config.reading import read_section, require, require_within

_MOST = 1 << 16
_AUDIO_LIMITS = {"sample_rate": 768_000, "channels": 64, "chunk_s": 3600}
_AUDIO_LIMITS |= dict.fromkeys(("n_fft", "hop"), _MOST)
_NETWORK_LIMITS = {"layers": 1000} | dict.fromkeys(
    ("d_model", "expand", "headdim", "d_state", "d_conv", "mask_expand"), _MOST
)
"""Limits far beyond any real network, which reject the numbers of damaged or hostile files."""


def _require_multiple(what: str, number: int, of: str, divisor: int) -> None:
    message = f"{what} ({number}) must be a multiple of {of} ({divisor})."
    require(number % divisor == 0, message)


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """The network's input: sample rate, chunk and spectrum."""

    sample_rate: int
    """Hz."""
    channels: int
    """Channels of a mixture."""
    chunk_s: int
    """Length of a chunk in seconds."""
    n_fft: int
    """Samples of a window (periodic Hann)."""
    hop: int
    """Samples between two frames."""
    target: str
    """Name of the stem that the mask estimates."""

    def __post_init__(self) -> None:
        for name, most in _AUDIO_LIMITS.items():
            require_within(f"audio.{name}", getattr(self, name), 1, most)
        is_name = 1 <= len(self.target) <= 100 and self.target.isprintable()
        require(is_name, "audio.target must be a name of 1 to 100 printable characters.")
        require(self.n_fft >= 2 and self.n_fft % 2 == 0, "audio.n_fft must be even.")
        require(self.hop <= self.n_fft // 2, "audio.hop must be at most half of audio.n_fft.")
        _require_multiple("audio.chunk_s in samples", self.chunk_samples, "audio.hop", self.hop)
        require(self.chunk_samples > self.n_fft, "audio.chunk_s must exceed one window (n_fft).")

    @property
    def bins(self) -> int:
        """Bins of a one-sided spectrum."""
        return self.n_fft // 2 + 1

    @property
    def chunk_samples(self) -> int:
        """Samples of a chunk."""
        return self.chunk_s * self.sample_rate

    @property
    def chunk_frames(self) -> int:
        """Frames of a chunk, including those centred on its two ends."""
        return self.chunk_samples // self.hop + 1

    @property
    def bin_features(self) -> int:
        """Real features of a bin: (left, right) x (re, im)."""
        return 2 * self.channels


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes and initial values of the network."""

    bands: tuple[tuple[int, int], ...]
    """Groups of equal bands from low to high: (bins per band, number of bands)."""
    d_model: int
    """Width of the residual stream."""
    layers: int
    """Pairs of a time block and a band block."""
    expand: int
    """d_inner / d_model."""
    headdim: int
    """Channels of a head."""
    d_state: int
    """State size of a channel."""
    d_conv: int
    """Taps of the causal depthwise convolution."""
    norm_eps: float
    """Added to the mean square in every RMSNorm of the blocks."""
    mask_expand: int
    """Hidden width of a mask MLP / d_model."""
    a_init: tuple[float, float]
    """Range of the initial -A, uniform."""
    dt_init: tuple[float, float]
    """Range of the initial step, log-uniform."""
    dt_init_floor: float
    """Smallest initial step."""

    def __post_init__(self) -> None:
        for name, most in _NETWORK_LIMITS.items():
            require_within(f"network.{name}", getattr(self, name), 1, most)
        require(
            bool(self.bands) and all(width >= 1 and count >= 1 for width, count in self.bands),
            "network.bands must list [bins, count] pairs of positive numbers.",
        )
        require_within("The number of network.bands", sum(n for _, n in self.bands), 1, _MOST)
        require(0 < self.a_init[0] <= self.a_init[1], "network.a_init must be a positive range.")
        require(0 < self.dt_init[0] <= self.dt_init[1], "network.dt_init must be a positive range.")
        what = "network.expand * network.d_model"
        _require_multiple(what, self.d_inner, "network.headdim", self.headdim)

    @cached_property
    def band_widths(self) -> tuple[int, ...]:
        """Bins of each band, low to high."""
        return tuple(width for width, count in self.bands for _ in range(count))

    @property
    def d_inner(self) -> int:
        """Channels inside a Mamba2 mixer."""
        return self.expand * self.d_model

    @property
    def n_heads(self) -> int:
        """Heads of a mixer."""
        return self.d_inner // self.headdim

    @property
    def d_xbc(self) -> int:
        """Channels of the convolution: x, B and C."""
        return self.d_inner + 2 * self.d_state

    @property
    def d_in_proj(self) -> int:
        """Outputs of one direction's projection: z, x, B, C and dt."""
        return self.d_inner + self.d_xbc + self.n_heads

    @property
    def d_mask(self) -> int:
        """Hidden width of a mask MLP."""
        return self.mask_expand * self.d_model


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The settings stored with weights: enough to rebuild the network and its spectrum."""

    audio: AudioConfig
    network: NetworkConfig

    def __post_init__(self) -> None:
        covered = sum(self.network.band_widths)
        require(
            covered == self.audio.bins,
            f"network.bands cover {covered} bins but must cover the {self.audio.bins} bins of "
            "audio.n_fft.",
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, from which `model_config` rebuilds the object."""
        return asdict(self)


def differences(first: ModelConfig, second: ModelConfig) -> list[str]:
    """Lists the settings in which two models differ, each as "audio.hop is 441 and 882"."""
    one, other = first.to_dict(), second.to_dict()
    return [
        f"{section}.{key} is {value} and {other[section][key]}"
        for section, values in one.items()
        for key, value in values.items()
        if value != other[section][key]
    ]


def model_config(values: Mapping[str, Any]) -> ModelConfig:
    """Rebuilds what `ModelConfig.to_dict` returned; raises ConfigError."""
    return read_section(ModelConfig, values)
