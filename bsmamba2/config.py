"""Every number of the network and of its training, read from one YAML file.

Nothing here imports torch: the runtime reads the same dataclasses out of an engine's metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from bsmamba2.config_file import read_assignment, read_section, read_yaml, require, require_one_of
from bsmamba2.errors import ConfigError


def _exact_div(numerator: int, denominator: int, what: str) -> int:
    if denominator <= 0 or numerator % denominator:
        raise ConfigError(f"{what}: {numerator} must be a positive multiple of {denominator}.")
    return numerator // denominator


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
            require(getattr(self, name) >= 1, f"audio.{name} must be at least 1.")
        require(self.n_fft >= 2 and self.n_fft % 2 == 0, "audio.n_fft must be even.")
        require(self.hop <= self.n_fft // 2, "audio.hop must be at most half of audio.n_fft.")
        _exact_div(self.chunk_samples, self.hop, "audio.chunk_s in samples over audio.hop")
        require(self.chunk_samples > self.n_fft, "audio.chunk_s must exceed one window.")

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
            require(getattr(self, name) >= 1, f"network.{name} must be at least 1.")
        require(
            bool(self.bands) and all(width >= 1 and count >= 1 for width, count in self.bands),
            "network.bands must list [bins, count] pairs of positive numbers.",
        )
        require(0 < self.a_init[0] <= self.a_init[1], "network.a_init must be a positive range.")
        require(0 < self.dt_init[0] <= self.dt_init[1], "network.dt_init must be positive.")
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
        require(
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
    coherent_probability: float
    """Chance of all stems of an item to come from one place of one track."""
    swap_probability: float
    """Chance of a stem to have its channels exchanged."""
    polarity_probability: float
    """Chance of a stem to be turned upside down."""
    eq_probability: float
    """Chance of a stem to pass through random bell filters."""
    eq_gain_db: float
    """Largest boost or cut of a bell."""
    pitch_probability: float
    """Chance of a stem to be transposed, which needs the extra 'augment'."""
    pitch_semitones: float
    """Largest transposition up or down."""
    unreadable_limit: int
    """Failed reads of a run that are skipped; one more ends it."""

    def __post_init__(self) -> None:
        require(bool(self.stems), "data.stems must name at least one stem.")
        require(len(set(self.stems)) == len(self.stems), "data.stems must name each stem once.")
        for name in (f.name for f in fields(self) if f.name.endswith(("_probability", "_share"))):
            require(0 <= getattr(self, name) <= 1, f"data.{name} must be within [0, 1].")
        require(0 <= self.gain[0] <= self.gain[1], "data.gain must be a range from 0 on.")
        require(0 <= self.salient_overlap < 1, "data.salient_overlap must be within [0, 1).")
        require(0 <= self.salient_quantile <= 1, "data.salient_quantile must be within [0, 1].")
        for name in ("salient_pieces", "items_per_epoch"):
            require(getattr(self, name) >= 1, f"data.{name} must be at least 1.")
        for name in ("salient_floor", "eq_gain_db", "pitch_semitones", "unreadable_limit"):
            require(getattr(self, name) >= 0, f"data.{name} must not be negative.")


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

    def __post_init__(self) -> None:
        require(self.waveform_weight >= 0, "loss.waveform_weight must not be negative.")
        for length in (*self.stft_windows, self.stft_min_n_fft):
            require(
                length >= 2 and length % 2 == 0,
                "loss.stft_windows and loss.stft_min_n_fft must be even and at least 2.",
            )
        require(self.stft_hop >= 1, "loss.stft_hop must be at least 1.")
        require(
            self.waveform_weight > 0 or bool(self.stft_windows), "loss must have at least one term."
        )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Optimiser, precision and schedule."""

    learning_rate: float
    """Of AdamW, the largest of the schedule."""
    schedule: str
    """After the warm-up: `constant`, or `cosine`, which ends at 0."""
    warmup_steps: int
    """Steps in which the learning rate rises linearly."""
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
    max_steps: int
    """Steps at most; 0 leaves it to max_epochs."""
    validation_every: int
    """Epochs between two validations; the last step is always followed by one."""
    keep_best: int
    """Checkpoints of the best validations that are kept beside the last."""
    checkpoint_minutes: float
    """Minutes between two saves; a validation saves too. 0 saves after every step."""
    workers: int
    """Processes that draw mixtures, of each training process; 0 draws in the process itself."""
    seed: int
    """Of weights and data."""
    checkpoint_gradients: bool
    """Recompute blocks in the backward pass to save memory."""
    compile: bool
    """Compile the blocks by torch.compile before the first step: minutes, then faster steps."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulation", "processes", "max_epochs", "validation_every"):
            require(getattr(self, name) >= 1, f"training.{name} must be at least 1.")
        for name in ("warmup_steps", "max_steps", "keep_best", "workers", "seed"):
            require(getattr(self, name) >= 0, f"training.{name} must not be negative.")
        require(self.checkpoint_minutes >= 0, "training.checkpoint_minutes must not be negative.")
        require(self.learning_rate > 0, "training.learning_rate must be positive.")
        require(self.weight_decay >= 0, "training.weight_decay must not be negative.")
        require(self.gradient_clip > 0, "training.gradient_clip must be positive.")
        require(0 <= self.ema_decay < 1, "training.ema_decay must be at least 0 and below 1.")
        require(all(0 <= b < 1 for b in self.betas), "training.betas must be within [0, 1).")
        require_one_of("training.precision", self.precision, ("bf16", "float32"))
        require_one_of("training.schedule", self.schedule, ("constant", "cosine"))

    @property
    def items_per_step(self) -> int:
        """Items of a step of one process."""
        return self.batch_size * self.accumulation


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


def load_config(name_or_path: str | Path) -> Config:
    """Reads a configuration by its name in the package or by its path.

    A file may name another configuration as its `base` and state only what differs.

    Raises:
        ConfigError: No such configuration, no YAML, or an unknown, missing or wrong value.
    """
    config = read_section(Config, read_yaml(str(name_or_path)))
    _ = config.model  # bands against bins
    return config


def override_config(config: Config, assignments: Iterable[str]) -> Config:
    """A configuration with some values replaced.

    Args:
        config: Is left as it is.
        assignments: Each `section.key=value`, the value as in YAML.

    Raises:
        ConfigError: No such key, or a value that does not fit it.
    """
    values = asdict(config)
    for assignment in assignments:
        section, key, value = read_assignment(assignment)
        values.setdefault(section, {})[key] = value
    changed = read_section(Config, values)
    _ = changed.model
    return changed


def model_config(values: Mapping[str, Any]) -> ModelConfig:
    """The inverse of `ModelConfig.to_dict`; raises ConfigError."""
    return read_section(ModelConfig, values)
