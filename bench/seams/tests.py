"""Whether the places where chunks meet can be told from others by what is heard there.

Three figures of a place, each made to jump where something was cut:

    level   change of level from the 20 ms before to the 20 ms after, |dB|
    flux    change of the spectrum between the same, mean over bins of |dB| (Hann, floor -100 dB)
    click   the largest third difference of two samples around against those of 10 ms around

A seam's rank is the share of places within a second around it, but not at a seam, that have a
smaller figure. Where seams are like other places, ranks are uniform and their mean, which is the
area under the detector's curve, is 0.5; one of 1 finds each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, wilcoxon

from bsmamba2.runtime.audio.samples import Samples

FIGURES = ("level", "flux", "click")
_WINDOW_S, _AROUND_S = 0.02, 0.01
_NEAR_S, _CLEAR_S, _GRID_S = 1.0, 0.1, 0.02
_FLOOR = 1e-10  # -100 dB of full scale
_HEARD = 1e-6  # -60 dB: what is quieter is no place to listen to


def place_figures(samples: Samples, places: NDArray[np.int64], rate: int) -> NDArray[np.float64]:
    """FIGURES of places in a sound: (figures, places).

    Args:
        samples: (channels, n).
        places: Samples, each the first after a cut that may be there; 30 ms from both ends.
        rate: Hz.
    """
    width, around = int(_WINDOW_S * rate), int(_AROUND_S * rate)
    offsets = np.arange(width)
    before = samples[:, places[:, None] - width + offsets].astype(np.float64)
    after = samples[:, places[:, None] + offsets].astype(np.float64)
    level = np.abs(_db(_power(after)) - _db(_power(before)))
    window = np.hanning(width)
    spectra = [
        _db(np.square(np.abs(np.fft.rfft(part * window))).mean(axis=0) / width)
        for part in (before, after)
    ]
    flux = np.abs(spectra[1] - spectra[0]).mean(axis=-1)
    third = np.abs(np.diff(samples.astype(np.float64), n=3, axis=1)).sum(axis=0)
    # third[i] is of samples i ... i + 3: a cut at place p shows in p - 3 ... p - 1.
    here = third[places[:, None] + np.arange(-3, 0)].max(axis=1)
    near = np.concatenate([np.arange(-around, -3), np.arange(0, around)])
    usual = np.sqrt(np.square(third[places[:, None] + near]).mean(axis=1))
    return np.stack([level, flux, here / (usual + _FLOOR)])


@dataclass
class SeamRanks:
    """Ranks of seams among other places, collected over songs."""

    ranks: list[NDArray[np.float64]] = field(default_factory=list)
    """(figures, seams) of each song."""
    excess: list[NDArray[np.float64]] = field(default_factory=list)
    """Figures of the chunked sound - those of the whole at the same place, the same shape."""

    def add(self, chunked: Samples, whole: Samples, seams: Sequence[int], rate: int) -> None:
        """One song: its sound put together of chunks, and in one piece."""
        margin = int(0.03 * rate)
        inside = np.array([s for s in seams if margin <= s < chunked.shape[1] - margin], np.int64)
        if not inside.size:
            return
        grid = np.arange(margin, chunked.shape[1] - margin, int(_GRID_S * rate))
        away = np.abs(grid[:, None] - inside).min(axis=1)
        grid = grid[(away > _CLEAR_S * rate) & (away <= _NEAR_S * rate)]
        grid = grid[_heard(chunked, grid, rate)]
        inside = inside[_heard(chunked, inside, rate)]
        if not inside.size or not grid.size:
            return
        others = place_figures(chunked, grid, rate)
        mine = place_figures(chunked, inside, rate)
        ranks = np.full(mine.shape, 0.5)
        for column, seam in enumerate(inside):
            near = others[:, np.abs(grid - seam) <= _NEAR_S * rate]
            if near.size:
                below, equal = near < mine[:, column, None], near == mine[:, column, None]
                ranks[:, column] = (below + 0.5 * equal).mean(axis=1)
        self.ranks.append(ranks)
        self.excess.append(mine - place_figures(whole, inside, rate))

    def verdict(self) -> dict[str, dict[str, float | int]]:
        """Figure -> seams; auc, its 95 % half-width, p of no excess over other places.

        And p_paired, of no excess over the whole song's estimate at the same places (Wilcoxon);
        all tests have one side.
        """
        if not self.ranks:
            return {}
        ranks, excess = np.concatenate(self.ranks, axis=1), np.concatenate(self.excess, axis=1)
        count = ranks.shape[1]
        error = 1 / np.sqrt(12 * count)  # of the mean of uniform ranks
        found = {}
        for row, name in enumerate(FIGURES):
            auc = float(ranks[row].mean())
            paired = (
                wilcoxon(excess[row], alternative="greater").pvalue if excess[row].any() else 1.0
            )
            found[name] = {
                "seams": count,
                "auc": round(auc, 4),
                "half_width": round(float(1.96 * error), 4),
                "p": float(f"{norm.sf((auc - 0.5) / error):.2g}"),
                "p_paired": float(f"{paired:.2g}"),
                "median_excess": float(f"{np.median(excess[row]):.3g}"),
            }
        return found


def with_steps(samples: Samples, seams: Sequence[int], step_db: float) -> Samples:
    """A sound with artificial seams: every other part is louder by `step_db`."""
    out = samples.copy()
    edges = [*seams, samples.shape[1]]
    for start, stop in zip(edges[::2], edges[1::2], strict=False):
        out[:, start:stop] *= np.float32(10 ** (step_db / 20))
    return out


def _heard(samples: Samples, places: NDArray[np.int64], rate: int) -> NDArray[np.bool_]:
    """Places with sound on both sides."""
    width = int(_WINDOW_S * rate)
    offsets = np.arange(width)
    parts = [samples[:, places[:, None] + offsets - shift] for shift in (width, 0)]
    return np.all([_power(part) > _HEARD for part in parts], axis=0)


def _power(parts: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.square(parts, dtype=np.float64).mean(axis=(0, 2))


def _db(power: NDArray[np.float64]) -> NDArray[np.float64]:
    return 10 * np.log10(power + _FLOOR)
