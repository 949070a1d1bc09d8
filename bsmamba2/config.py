"""Every number of the network and of its training, read from one YAML file.

Nothing here imports torch: the runtime reads the same dataclasses out of an engine's metadata.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from bsmamba2.errors import ConfigError

T = TypeVar("T")


def _exact_div(numerator: int, denominator: int, what: str) -> int:
    if denominator <= 0 or numerator % denominator:
        raise ConfigError(f"{what}: {numerator} must be a positive multiple of {denominator}.")
    return numerator // denominator


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """What the network hears: sample rate, chunk and spectrum."""

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
        for name in ("sample_rate", "channels", "chunk_s", "hop"):
            _require(getattr(self, name) >= 1, f"audio.{name} must be at least 1.")
        _require(self.n_fft >= 2 and self.n_fft % 2 == 0, "audio.n_fft must be even.")
        _require(self.hop <= self.n_fft // 2, "audio.hop must be at most half of audio.n_fft.")
        _exact_div(self.chunk_samples, self.hop, "audio.chunk_s in samples over audio.hop")
        _require(self.chunk_samples > self.n_fft, "audio.chunk_s must exceed one window.")

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
        """Frames of a chunk, the centred one at either end included."""
        return self.chunk_samples // self.hop + 1

    @property
    def bin_features(self) -> int:
        """Real features of a bin: (left, right) x (re, im)."""
        return 2 * self.channels


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes and initial values of the network."""

    bands: tuple[tuple[int, int], ...]
    """Groups of equal bands from low to high: (bins of a band, how many)."""
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
        for name in ("d_model", "layers", "expand", "headdim", "d_state", "d_conv", "mask_expand"):
            _require(getattr(self, name) >= 1, f"network.{name} must be at least 1.")
        _require(
            bool(self.bands) and all(width >= 1 and count >= 1 for width, count in self.bands),
            "network.bands must list [bins, count] pairs of positive numbers.",
        )
        _require(0 < self.a_init[0] <= self.a_init[1], "network.a_init must be a positive range.")
        _require(0 < self.dt_init[0] <= self.dt_init[1], "network.dt_init must be positive.")
        _exact_div(self.d_inner, self.headdim, "network.expand * d_model over network.headdim")

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
    """What an artefact carries: enough to rebuild the network and its spectrum."""

    audio: AudioConfig
    network: NetworkConfig

    def __post_init__(self) -> None:
        covered = sum(self.network.band_widths)
        _require(
            covered == self.audio.bins,
            f"network.bands cover {covered} bins, but audio.n_fft gives {self.audio.bins}.",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `model_config` reads them."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How training mixtures are drawn (the authors' loader)."""

    stems: tuple[str, ...]
    """Stems that add up to a mixture."""
    silent_probability: float
    """Chance of each stem to be silenced in an item."""
    gain: tuple[float, float]
    """Range of each stem's uniform gain."""
    salient_overlap: float
    """Share that two neighbouring windows have in common."""
    salient_pieces: int
    """Pieces of a window."""
    salient_quantile: float
    """Quantile of the pieces' RMS that makes the threshold."""
    salient_floor: float
    """Smallest threshold, RMS of full scale 1."""
    salient_share: float
    """Share of pieces that must exceed the threshold."""
    items_per_epoch: int
    """Mixtures drawn in an epoch."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Waveform and multi-resolution STFT loss."""

    waveform_weight: float
    """Weight of mean |y - s|; the spectra have weight 1."""
    stft_windows: tuple[int, ...]
    """Window lengths in samples."""
    stft_hop: int
    """Samples between frames, the same for every window."""
    stft_min_n_fft: int
    """n_fft = max(window, this)."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Optimiser, precision and schedule."""

    learning_rate: float
    """Of AdamW, constant."""
    betas: tuple[float, float]
    """Of AdamW."""
    weight_decay: float
    """Of AdamW."""
    gradient_clip: float
    """Largest gradient norm."""
    precision: str
    """Autocast dtype: bf16 or float32."""
    ema_decay: float
    """Decay of the weights' moving average, every step."""
    batch_size: int
    """Items of a process and forward pass."""
    accumulation: int
    """Forward passes of a step."""
    processes: int
    """Processes (GPUs) of the published run."""
    max_epochs: int
    """Epochs at most."""
    seed: int
    """Of weights and data."""
    checkpoint_gradients: bool
    """Recompute blocks in the backward pass to save memory."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One YAML file: the model and how to train it."""

    audio: AudioConfig
    network: NetworkConfig
    data: DataConfig
    loss: LossConfig
    training: TrainingConfig

    @cached_property
    def model(self) -> ModelConfig:
        """The part that travels with weights."""
        return ModelConfig(audio=self.audio, network=self.network)


def config_names() -> list[str]:
    """Names of the configurations in the package."""
    folder = resources.files("bsmamba2.configs")
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name[-5:] == ".yaml")


def load_config(name_or_path: str | Path) -> Config:
    """Reads a configuration by its name in the package or by its path.

    A file may name another configuration as its `base` and state only what differs.

    Raises:
        ConfigError: No such configuration, no YAML, or an unknown, missing or wrong value.
    """
    config = _build(Config, _load_yaml(str(name_or_path)), "")
    _ = config.model  # bands against bins
    return config


def model_config(values: Mapping[str, Any]) -> ModelConfig:
    """The inverse of `ModelConfig.to_dict`; raises ConfigError."""
    return _build(ModelConfig, values, "")


def _load_yaml(name: str, depth: int = 0) -> dict[str, Any]:
    _require(depth < 8, f"configuration {name}: 'base' leads in a circle.")
    try:
        values = yaml.safe_load(_read_text(name))
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from error
    _require(isinstance(values, dict), f"{name} must hold sections such as 'network:'.")
    base = values.pop("base", None)
    if base is None:
        return typing.cast(dict[str, Any], values)
    merged = _load_yaml(str(base), depth + 1)
    for section, changes in values.items():
        _require(isinstance(changes, dict), f"{name}: section '{section}' must hold keys.")
        merged[section] = {**merged.get(section, {}), **changes}
    return merged


def _read_text(name: str) -> str:
    if name in config_names():
        return resources.files("bsmamba2.configs").joinpath(f"{name}.yaml").read_text("utf-8")
    try:
        return Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(config_names())
        raise ConfigError(
            f"No configuration {name}: name one of {known}, or a readable YAML file."
        ) from error


def _build(kind: type[T], values: Any, where: str) -> T:
    """A dataclass from plain values; every key must be known and present."""
    _require(isinstance(values, Mapping), f"'{where.rstrip('.')}' must hold keys and values.")
    hints = typing.get_type_hints(kind)
    known = {field.name for field in fields(typing.cast(Any, kind))}
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean '{where}{close[0]}'?" if close else "."
            raise ConfigError(f"Unknown configuration key '{where}{key}'{hint}")
    missing = sorted(known - set(values))
    _require(not missing, f"Configuration lacks '{where}{missing[0] if missing else ''}'.")
    return kind(**{key: _convert(hints[key], values[key], f"{where}{key}") for key in known})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return _build(typing.cast(type, hint), value, f"{where}.")
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        _require(isinstance(value, (list, tuple)), f"'{where}' must be a list, not {value!r}.")
        if kinds[-1] is not Ellipsis:
            _require(len(value) == len(kinds), f"'{where}' must have {len(kinds)} values.")
        else:
            kinds = (kinds[0],) * len(value)
        return tuple(_convert(k, v, where) for k, v in zip(kinds, value, strict=True))
    if hint is float and type(value) is int:
        return float(value)
    name = getattr(hint, "__name__", str(hint))
    _require(type(value) is hint, f"'{where}' must be of type {name}, not {value!r}.")
    return value
