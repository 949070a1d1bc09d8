"""What `bsm infer` says at its end: a line for people, a document for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bsmamba2.runtime.naming import Failure
    from bsmamba2.runtime.separate_files import Report


@dataclass(frozen=True, kw_only=True)
class Run:
    """All that was separated with one engine."""

    reports: Sequence[Report]
    elapsed_s: float
    """From the first file's beginning to the last one's end."""
    jobs: int
    """Songs at a time."""
    batch: int
    """Chunks that the engine got at a time."""

    @property
    def engine_share(self) -> float:
        """Part of the elapsed time in which the engine worked, 0 to 1."""
        return sum(report.stages_s["engine"] for report in self.reports) / self.elapsed_s

    def summary(self) -> str:
        """One line: how much audio in which time."""
        audio_s = sum(report.duration_s for report in self.reports)
        files = "1 file" if len(self.reports) == 1 else f"{len(self.reports)} files"
        return (
            f"{files}, {audio_s:.1f} s of audio in {self.elapsed_s:.1f} s: "
            f"real-time factor {self.elapsed_s / audio_s:.3f} "
            f"({audio_s / self.elapsed_s:.1f} x real time), "
            f"the engine at work {self.engine_share:.0%} of the time"
        )

    def document(self) -> dict[str, Any]:
        """Figures of the whole."""
        return {
            "jobs": self.jobs,
            "batch": self.batch,
            "elapsed_s": round(self.elapsed_s, 3),
            "engine_share": round(self.engine_share, 4),
        }


def document(
    engine: dict[str, Any] | None, run: Run | None, failures: Sequence[Failure]
) -> dict[str, Any]:
    """What `--json` prints.

    Args:
        engine: What it is; None if no input was found.
        run: None as well.
        failures: Inputs that gave nothing.
    """
    return {
        "engine": engine,
        "run": run and run.document(),
        "files": [_file(report) for report in run.reports] if run else [],
        "failed": [{"input": failure.source, "error": failure.error} for failure in failures],
    }


def _file(report: Report) -> dict[str, Any]:
    return {
        "input": str(report.source),
        "outputs": {stem: str(path) for stem, path in report.outputs.items()},
        "duration_s": report.duration_s,
        "elapsed_s": round(report.elapsed_s, 3),
        "real_time_factor": round(report.real_time_factor, 4),
        "engine_share": round(report.engine_share, 4),
        "stages_s": {stage: round(seconds, 3) for stage, seconds in report.stages_s.items()},
        "sample_rate": report.sample_rate,
        "channels": report.channels,
    }
