"""Measures the difference of two engines, stage by stage, without torch.

    reference excerpt -> spectrum -> masks of both -> synthesis of both -> the runtime's audio

Masks are compared number by number. Their effect on the sound is an SDR, for which an engine's own
transforms are used if it has any. The limits follow from the precisions of the two engines;
the spectrum, which is always float32, has a fixed limit.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsmamba2.config.model import AudioConfig, differences
from bsmamba2.errors import EngineError
from bsmamba2.evaluation.metrics import ratio_db, usdr
from bsmamba2.evaluation.reference_excerpt import ReferenceExcerpt
from bsmamba2.formats.metadata import Metadata
from bsmamba2.runtime.audio.samples import Samples
from bsmamba2.runtime.engines.base import Engine, Spectrum
from bsmamba2.runtime.engines.estimation import EstimatingEngine, masked, real_view
from bsmamba2.runtime.engines.stft import istft, stft
from bsmamba2.runtime.separation.separator import Separator


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Largest differences allowed between two engines of one network."""

    relative_rms: float
    """RMS of the difference of the masks, relative to the RMS of the mask."""
    p999: float
    """99.9th percentile of |difference| of the masks, whose values are about 1."""
    sdr_db: float
    """Lowest SDR of the second engine's estimate against the first one's."""
    usdr_db: float
    """Largest difference of their uSDRs against the true target."""


LIMITS = {
    "float32": Limits(relative_rms=1e-5, p999=1e-4, sdr_db=80.0, usdr_db=0.001),
    "float16": Limits(relative_rms=3e-3, p999=3e-2, sdr_db=37.0, usdr_db=0.02),
    "int8": Limits(relative_rms=1e-1, p999=1.0, sdr_db=30.0, usdr_db=0.1),
}
"""Limits by precision, the strictest first. For int8 the SDR measures the loss of quality; its mask
limits are wide, because single frames may deviate, and only detect a graph of another network.

Without the true target, the loss of uSDR is not known, but bounded. Rounding errors are not
correlated with the network's errors, so their energies add up: an estimate with an SDR of x dB
against the target, whose rounding errors are r dB below it, loses 10 log10(1 + 10^((x - r) / 10))
dB. With the limits of sdr_db this is at most usdr_db for every song that the network separates with
13.6 dB or less; the published networks reach 11 dB.
"""
_SPECTRUM_RMS = 1e-6  # limit for a transform in float32


@dataclass(frozen=True)
class Figure:
    """A measured number and its limit."""

    stage: str
    name: str
    value: float
    limit: float
    least: bool = False
    """Whether the limit is a minimum instead of a maximum."""

    @property
    def passed(self) -> bool:
        """Whether the value is within the limit; NaN never is."""
        return self.value >= self.limit if self.least else self.value <= self.limit

    def document(self) -> dict[str, Any]:
        """Returns plain values for JSON, with null for NaN and infinity."""
        value = self.value if math.isfinite(self.value) else None
        return asdict(self) | {"value": value, "passed": self.passed}


def compare_engines(first: Engine, second: Engine, excerpt: ReferenceExcerpt) -> list[Figure]:
    """Compares two engines; returns the figures of all stages, in order.

    Args:
        first: The engine taken as the reference.
        second: An engine of the same configuration.
        excerpt: Input of both engines.

    Raises:
        EngineError: Networks or audio settings differ, a precision is unknown, or an engine failed.
    """
    _check_same_network(first.metadata, second.metadata)
    limits = _pair_limits(first, second)
    audio = first.metadata.model.audio
    spectrum = spectrum_of(excerpt.chunks, audio)
    exact = spectrum_of(excerpt.chunks.astype(np.float64), audio)
    masks = [_mask(engine, spectrum) for engine in (first, second)]
    length = excerpt.mixture.shape[1]
    estimates = [synthesis(mask, spectrum, audio, length) for mask in masks]
    sounds = [
        _audio(engine, excerpt, estimate)
        for engine, estimate in zip((first, second), estimates, strict=True)
    ]
    rms, most = relative_rms(estimates[1], estimates[0]), 10 ** (-limits.sdr_db / 20)
    figures = [
        Figure("spectrum", "relative RMS to float64", relative_rms(spectrum, exact), _SPECTRUM_RMS),
        Figure("mask", "relative RMS", relative_rms(masks[1], masks[0]), limits.relative_rms),
        Figure("mask", "p99.9 |difference|", percentile_999(masks[1], masks[0]), limits.p999),
        Figure("synthesis", "relative RMS", rms, most),
    ]
    name, value = "SDR of one against the other, dB", sdr_db(sounds[0], sounds[1])
    figures.append(Figure("audio", name, value, limits.sdr_db, least=True))
    if excerpt.voice is not None:
        scores = [usdr(excerpt.voice, sound) for sound in sounds]
        name = f"difference of uSDR ({scores[0]:.2f} and {scores[1]:.2f} dB), dB"
        figures.append(Figure("audio", name, abs(scores[1] - scores[0]), limits.usdr_db))
    return figures


def _check_same_network(first: Metadata, second: Metadata) -> None:
    if first.model == second.model:
        return
    listed = differences(first.model, second.model)
    hear = any(name.startswith("audio.") for name in listed)
    what = "have different audio settings" if hear else "are different networks"
    raise EngineError(
        f"The two engines {what} ({', '.join(listed)}): compare engines of one checkpoint."
    )


def _pair_limits(first: Engine, second: Engine) -> Limits:
    """Returns the limits for the less precise of the two."""
    order, precisions = list(LIMITS), [first.precision, second.precision]
    for precision in precisions:
        if precision not in LIMITS:
            raise EngineError(
                f"There are no limits for the precision '{precision}', only for "
                f"{', '.join(LIMITS)}: upgrade bsmamba2."
            )
    return LIMITS[max(precisions, key=order.index)]


def spectrum_of(chunks: NDArray[Any], audio: AudioConfig) -> NDArray[Any]:
    """Returns an engine's input, (batch, channels, frames, bins, 2), in the dtype of the chunks."""
    return real_view(stft(chunks, n_fft=audio.n_fft, hop=audio.hop))


def synthesis(mask: Spectrum, spectrum: Spectrum, audio: AudioConfig, length: int) -> Samples:
    """Returns the target, (channels, length), from the masked spectra of concatenated chunks."""
    estimate = masked(mask, spectrum.view(np.complex64)[..., 0])
    chunks = istft(estimate, n_fft=audio.n_fft, hop=audio.hop, length=audio.chunk_samples)
    samples: Samples = np.concatenate(list(chunks), axis=1)[:, :length]
    return samples


def relative_rms(values: NDArray[Any], expected: NDArray[Any]) -> float:
    """RMS of the difference relative to the RMS of `expected`, in float64."""
    expected = expected.astype(np.float64)
    difference = np.sqrt(np.mean((values - expected) ** 2))
    return float(difference / max(np.sqrt(np.mean(expected**2)), 1e-30))


def percentile_999(values: NDArray[Any], expected: NDArray[Any]) -> float:
    """99.9th percentile of |difference|."""
    return float(np.quantile(np.abs(values.astype(np.float64) - expected), 0.999))


def sdr_db(reference: Samples, estimate: Samples) -> float:
    """10 log10(sum s^2 / sum (s - y)^2), +Inf if they are equal; without epsilon, unlike uSDR."""
    s = reference.astype(np.float64)
    error = s - estimate
    if not error.any():
        return math.inf
    return ratio_db(float(np.vdot(s, s)), float(np.vdot(error, error)))


def _mask(engine: Engine, spectrum: Spectrum) -> Spectrum:
    """Returns an engine's masks of many chunks, computed one by one to save memory."""
    return np.concatenate([engine(np.ascontiguousarray(chunk[None])) for chunk in spectrum])


def _audio(engine: Engine, excerpt: ReferenceExcerpt, estimate: Samples) -> Samples:
    """Returns the runtime's estimate; for engines that return only masks, this is `estimate`."""
    if not isinstance(engine, EstimatingEngine):
        return estimate
    separator = Separator(engine, overlap_s=0)
    audio = engine.metadata.model.audio
    target: Samples = separator.separate(excerpt.mixture, audio.sample_rate)[audio.target]
    return target
