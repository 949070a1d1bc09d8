"""The gates that an exported file must pass before it gets its name.

In every precision its mask must match PyTorch's on a fixed spectrum. In a lower one it must also
separate music as float32 does, and stay finite on inputs that tend to break half precision. A
float16 file is tested with two engines, each of which reveals something else:

- ONNX Runtime runs the file itself, which shows that the graph is the network. On a CPU it computes
  float16 in float32 (`rounding`): this shows the rounding of weights but hardly that of
  activations, and no overflow.
- The folded network in PyTorch, with every value rounded to float16, shows those effects, but
  does not test the file.

Both must pass. An int8 file is for CPUs, where ONNX Runtime runs it as it is: one engine
shows everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bsmamba2.config.model import AudioConfig
from bsmamba2.errors import ExportError
from bsmamba2.evaluation.metrics import usdr
from bsmamba2.evaluation.parity import (
    LIMITS,
    percentile_999,
    relative_rms,
    sdr_db,
    spectrum_of,
    synthesis,
)
from bsmamba2.evaluation.reference_excerpt import ReferenceExcerpt, fixed_mixture
from bsmamba2.formats.metadata import MaskParity, PrecisionCheck
from bsmamba2.runtime.audio.samples import Samples

PARITY_FRAMES = (1, 2, 63, 801)  # one step, a pair, one chunk of the scan, a chunk of audio
HOSTILE_FRAMES = 201
"""Frames of hostile inputs for engines that show overflow. With constant input a state grows at
most in proportion to time: if the largest value leaves room for that, no longer input is needed."""
_SHORT_FRAMES = 65  # more than one chunk of the scan; for engines that do not show overflow
_MAX_HALF = float(np.finfo(np.float16).max)

Mask = NDArray[np.float32]
MaskFunction = Callable[[NDArray[np.float32]], Mask]


def fixed_spectrum(audio: AudioConfig, frames: int) -> NDArray[np.float32]:
    """Returns the spectrum of `fixed_mixture`, (1, channels, frames, bins, 2) float32."""
    mixture = fixed_mixture(audio, max(audio.n_fft + 1, (frames - 1) * audio.hop))
    return np.ascontiguousarray(spectrum_of(mixture[None], audio)[:, :, :frames])


def measure_parity(
    reference: MaskFunction,
    candidate: MaskFunction,
    audio: AudioConfig,
    frames: Sequence[int] = PARITY_FRAMES,
) -> Iterator[MaskParity]:
    """Compares two engines on the fixed spectrum; yields a figure for each number of frames."""
    for count in frames:
        spectrum = fixed_spectrum(audio, count)
        expected, mask = reference(spectrum), candidate(spectrum)
        yield MaskParity(
            frames=count,
            p999=percentile_999(mask, expected),
            relative_rms=relative_rms(mask, expected),
        )


def check_parity(figures: Sequence[MaskParity], precision: str = "float32") -> None:
    """Raises ExportError if a figure is over the limits of a precision, or NaN."""
    limits = LIMITS[precision]
    failed = [
        f"{figure.frames} frames: {figure}"
        for figure in figures
        if not (figure.p999 <= limits.p999 and figure.relative_rms <= limits.relative_rms)
    ]
    if failed:
        raise ExportError(
            f"The exported mask differs from PyTorch's by more than p99.9 {limits.p999:.0e} or "
            f"relative RMS {limits.relative_rms:.0e} ({'; '.join(failed)}): nothing was written."
        )


class Reference:
    """The float32 network on a reference excerpt; its mask is computed on first use."""

    def __init__(
        self, network: MaskFunction, excerpt: ReferenceExcerpt, audio: AudioConfig
    ) -> None:
        self.excerpt, self.audio = excerpt, audio
        self._network = network
        self._spectrum = spectrum_of(excerpt.chunks, audio)

    @cached_property
    def mask(self) -> Mask:
        """The network's mask of the excerpt."""
        return self.mask_of(self._network)

    @cached_property
    def voice(self) -> Samples:
        """The target that this mask separates, (channels, n)."""
        return self.voice_of(self.mask)

    def mask_of(self, engine: MaskFunction) -> Mask:
        """Returns any engine's mask of the excerpt, computed chunk by chunk."""
        return np.concatenate([engine(np.ascontiguousarray(s[None])) for s in self._spectrum])

    def voice_of(self, mask: Mask) -> Samples:
        """Returns the target that a mask separates, (channels, n)."""
        return synthesis(mask, self._spectrum, self.audio, self.excerpt.mixture.shape[1])


def check_precision(
    name: str, candidate: MaskFunction, reference: Reference, precision: str
) -> PrecisionCheck:
    """Runs one engine through all gates of a precision.

    Args:
        name: Description of the engine for the report.
        candidate: The engine. If it has an attribute `largest`, the largest float16 magnitude of
            its last call (`RoundedNetwork`), it is also checked for overflow.
        reference: The same network in float32.
        precision: A key of LIMITS.

    Raises:
        ExportError: A figure is over its limit or NaN, or a number is not finite.
    """
    inputs, largest = _check_hostile(name, candidate, reference.audio)
    mask = reference.mask_of(candidate)
    voice, truth = reference.voice_of(mask), reference.excerpt.voice
    check = PrecisionCheck(
        engine=name,
        music=reference.excerpt.name,
        relative_rms=relative_rms(mask, reference.mask),
        sdr_db=sdr_db(reference.voice, voice),
        usdr_loss_db=None if truth is None else usdr(truth, reference.voice) - usdr(truth, voice),
        hostile=inputs,
        largest=largest,
    )
    _check_limits(check, precision)
    return check


def _check_limits(check: PrecisionCheck, precision: str) -> None:
    """Checks the loss of uSDR if the true target is known, otherwise the bound on it (LIMITS)."""
    limits = LIMITS[precision]
    problems = []
    if not check.relative_rms <= limits.relative_rms:
        problems.append(f"the mask's relative RMS may be at most {limits.relative_rms:g}")
    if check.usdr_loss_db is None:
        if not check.sdr_db >= limits.sdr_db:
            problems.append(f"the SDR to float32 must be at least {limits.sdr_db:g} dB")
    # A quantised file may come out better by chance; one that is only rounded may not differ.
    elif not (check.usdr_loss_db if precision == "int8" else abs(check.usdr_loss_db)) <= (
        limits.usdr_db
    ):
        problems.append(f"the uSDR may change by at most {limits.usdr_db:g} dB")
    if problems:
        raise ExportError(
            f"{precision} costs this network too much ({check}; "
            f"{' and '.join(problems)}): use float32, or measure it on your own music (--audio); "
            "nothing was written."
        )


def _check_hostile(
    name: str, candidate: MaskFunction, audio: AudioConfig
) -> tuple[tuple[str, ...], float | None]:
    """Checks that all masks are finite; returns the inputs' names and the largest magnitude."""
    watched = hasattr(candidate, "largest")
    largest, names = 0.0, []
    for what, samples in hostile_samples(audio):
        spectrum = spectrum_of(samples[None], audio)
        for frames in (HOSTILE_FRAMES if watched else _SHORT_FRAMES, audio.chunk_frames):
            mask = candidate(np.ascontiguousarray(spectrum[:, :, :frames]))
            seen: float = getattr(candidate, "largest", 0.0)
            if not (np.isfinite(mask).all() and math.isfinite(seen)):
                raise ExportError(
                    f"On {what} this precision produces NaN or infinite numbers ({name}): "
                    "use float32; nothing was written."
                )
            largest = max(largest, seen)
            if seen * audio.chunk_frames <= _MAX_HALF * frames:
                break
        names.append(what)
    return tuple(names), largest if watched else None


def hostile_samples(audio: AudioConfig) -> Iterator[tuple[str, Samples]]:
    """Yields inputs that tend to break half precision: name and samples (channels, n)."""
    shape = (audio.channels, audio.chunk_samples)
    random = np.random.default_rng(0)
    time_s = np.arange(audio.chunk_samples) / audio.sample_rate
    square = np.where(220 * time_s % 1 < 0.5, 1.0, -1.0)
    yield "silence", np.zeros(shape, np.float32)
    yield "full-scale noise", random.uniform(-1, 1, shape).astype(np.float32)
    yield "a 0 dBFS square wave", np.broadcast_to(square, shape).astype(np.float32)
    yield "denormals", (1e-40 * random.choice([-1.0, 1.0], shape)).astype(np.float32)
