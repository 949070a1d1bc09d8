"""How a network is trained: the sections of a configuration that are not stored with weights."""

from __future__ import annotations

from dataclasses import dataclass, fields

from bsmamba2.config.reading import require, require_one_of


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How training mixtures are drawn (after the authors' data loader)."""

    stems: tuple[str, ...]
    """Stems that add up to a mixture."""
    silent_probability: float
    """Probability that a stem of a mixture is silenced."""
    gain: tuple[float, float]
    """Range of each stem's gain, drawn uniformly."""
    salient_overlap: float
    """Fraction by which neighbouring windows overlap."""
    salient_pieces: int
    """Pieces into which a window is divided."""
    salient_quantile: float
    """The threshold is this quantile of the pieces' RMS."""
    salient_floor: float
    """Lowest threshold: an RMS, where full scale is 1."""
    salient_share: float
    """A window is salient if more than this share of its pieces exceed the threshold."""
    items_per_epoch: int
    """Mixtures drawn in an epoch."""
    coherent_probability: float
    """Probability that all stems of a mixture come from the same place in one track."""
    swap_probability: float
    """Probability that the channels of a stem are swapped."""
    polarity_probability: float
    """Probability that the polarity of a stem is inverted."""
    eq_probability: float
    """Probability that a stem passes through random bell filters."""
    eq_gain_db: float
    """Largest boost or cut of a bell filter."""
    pitch_probability: float
    """Probability that a stem is transposed, which needs the 'augment' extra."""
    pitch_semitones: float
    """Largest transposition up or down."""
    unreadable_limit: int
    """Failed reads that a run tolerates; one more ends it."""

    def __post_init__(self) -> None:
        require(bool(self.stems), "data.stems must name at least one stem.")
        require(len(set(self.stems)) == len(self.stems), "data.stems must name each stem once.")
        for name in (f.name for f in fields(self) if f.name.endswith(("_probability", "_share"))):
            require(0 <= getattr(self, name) <= 1, f"data.{name} must be within [0, 1].")
        in_order = 0 <= self.gain[0] <= self.gain[1]
        require(in_order, "data.gain must be [lowest, highest], both at least 0.")
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
    """AdamW's learning rate, the largest of the schedule."""
    schedule: str
    """What follows the warm-up: `constant`, or `cosine`, which falls to 0."""
    warmup_steps: int
    """Steps in which the learning rate rises linearly."""
    betas: tuple[float, float]
    """AdamW's betas."""
    weight_decay: float
    """AdamW's weight decay."""
    gradient_clip: float
    """Norm to which larger gradients are scaled down."""
    precision: str
    """Autocast dtype: bf16 or float32."""
    ema_decay: float
    """Decay per step of the weights' moving average (EMA)."""
    batch_size: int
    """Mixtures per forward pass of a process."""
    accumulation: int
    """Forward passes per step (gradient accumulation)."""
    processes: int
    """Processes (GPUs) that the settings above are meant for; torchrun decides how many run."""
    max_epochs: int
    """Largest number of epochs."""
    max_steps: int
    """Largest number of steps; with 0, only max_epochs limits the run."""
    validation_every: int
    """Epochs between validations; the last step is always followed by one."""
    keep_best: int
    """Checkpoints of the best validations that are kept besides the last checkpoint."""
    checkpoint_minutes: float
    """Minutes between saves; every validation saves, too. 0 saves after every step."""
    workers: int
    """Processes that draw mixtures for each training process; 0 draws in the training process."""
    seed: int
    """Seed of the initial weights and of the data."""
    checkpoint_gradients: bool
    """Recompute blocks in the backward pass to save memory."""
    compile: bool
    """Compile the blocks with torch.compile first: takes minutes, then every step is faster."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulation", "processes", "max_epochs", "validation_every"):
            require(getattr(self, name) >= 1, f"training.{name} must be at least 1.")
        for name in ("warmup_steps", "max_steps", "keep_best", "workers", "seed"):
            require(getattr(self, name) >= 0, f"training.{name} must not be negative.")
        require(self.seed < 1 << 63, "training.seed must be below 2^63.")
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
        """Mixtures per step of one process."""
        return self.batch_size * self.accumulation
