"""The job of a part of `measure.py`, and the figures that it saves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.common.report import write_report
from bench.common.scans import FULL, SMALL
from bsmamba2.models.scan import Sizes


@dataclass(frozen=True, kw_only=True)
class Job:
    """One part, which runs in a process of its own."""

    part: str
    result: str
    """File for its figures (JSON)."""
    library: str = ""
    """libbsm_scan; "" until it is built."""
    mamba_ssm: str = ""
    """Checkout of state-spaces/mamba; "" takes the installed package, if any."""
    plugin: str = ""
    """libbsm_trt_plugin of a rehearsal; "" builds it."""
    rehearsal: bool = False
    """Run on the CPU, at small sizes, to see whether everything works."""
    quick: bool = False
    """Fewer cases and rounds."""
    cases: tuple[tuple[int, int, int, int, int, str], ...] = ()
    """Scans for a tool to watch: N, L, n_heads, headdim, d_state, type."""
    plant: bool = False
    """Make the output of `cases` too short, to see whether the tool finds that."""


class Skipped(Exception):  # noqa: N818  (nothing is wrong)
    """The part needs something that is not installed here."""


@dataclass
class Part:
    """A running job; figures that are saved survive whatever ends the process."""

    job: Job
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """The GPU or, in a rehearsal, the CPU."""
        return torch.device("cpu" if self.job.rehearsal else "cuda")

    @property
    def rounds(self) -> int:
        """Rounds in which each candidate is timed."""
        return 1 if self.job.rehearsal else 5 if self.job.quick else 15

    @property
    def sizes(self) -> Sizes:
        """Sizes of the scan."""
        return SMALL if self.job.rehearsal else FULL

    @property
    def paths(self) -> dict[str, tuple[int, int]]:
        """(N, L) of the scan along time and along bands, one chunk of 8 s."""
        if self.job.rehearsal:
            return {"time": (2, 70), "bands": (5, 62)}
        return {"time": (62, 801), "bands": (801, 62)}

    def say(self, text: str) -> None:
        """Prints a line of progress."""
        print(f"  {text}", flush=True)

    def save(self) -> None:
        """Saves the figures so far for `measure.py`."""
        write_report(Path(self.job.result), self.values)


def relative_rms(actual: torch.Tensor, expected: torch.Tensor) -> float | None:
    """RMS of the difference over the RMS of the expected values; None if it is not finite."""
    expected = expected.double()
    difference = actual.double().sub_(expected).square_().mean().sqrt()
    return finite(difference / expected.square().mean().sqrt().clamp(min=1e-300))


def finite(value: torch.Tensor) -> float | None:
    """The number for JSON, which has no NaN: None if it is not finite."""
    return float(value) if value.isfinite() else None
