"""What a part of `measure.py` is given, and where it leaves its figures."""

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
    """One part, to be computed in a process of its own."""

    part: str
    result: str
    """File for its figures (JSON)."""
    library: str = ""
    """libbsm_scan; "" until it is built."""
    mamba_ssm: str = ""
    """Checkout of state-spaces/mamba; "" takes what is installed, if anything."""
    plugin: str = ""
    """A rehearsal's libbsm_trt_plugin; "" builds it."""
    rehearsal: bool = False
    """On the CPU, in small, to see whether everything runs."""
    quick: bool = False
    """Fewer cases and rounds."""
    cases: tuple[tuple[int, int, int, int, int, str], ...] = ()
    """Scans for a tool to watch: N, L, n_heads, headdim, d_state, type."""
    plant: bool = False
    """Makes their output too short, to see whether the tool finds that."""


class Skipped(Exception):  # noqa: N818  (nothing is wrong)
    """The part needs what is not here."""


@dataclass
class Part:
    """A job at work; figures outlive whatever ends the process once they are saved."""

    job: Job
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where it computes; a rehearsal has a CPU in the GPU's place."""
        return torch.device("cpu" if self.job.rehearsal else "cuda")

    @property
    def rounds(self) -> int:
        """Turns of each candidate."""
        return 1 if self.job.rehearsal else 5 if self.job.quick else 15

    @property
    def sizes(self) -> Sizes:
        """Of the scan."""
        return SMALL if self.job.rehearsal else FULL

    @property
    def paths(self) -> dict[str, tuple[int, int]]:
        """(N, L) of the scan along time and along bands, one chunk of 8 s."""
        if self.job.rehearsal:
            return {"time": (2, 70), "bands": (5, 62)}
        return {"time": (62, 801), "bands": (801, 62)}

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"  {text}", flush=True)

    def save(self) -> None:
        """Leaves the figures so far for `measure.py`."""
        write_report(Path(self.job.result), self.values)


def relative_rms(actual: torch.Tensor, expected: torch.Tensor) -> float | None:
    """RMS of the difference over the RMS of what is expected; None where it is no number."""
    expected = expected.double()
    difference = actual.double().sub_(expected).square_().mean().sqrt()
    return finite(difference / expected.square().mean().sqrt().clamp(min=1e-300))


def finite(value: torch.Tensor) -> float | None:
    """A number for JSON, which knows no NaN."""
    return float(value) if value.isfinite() else None
