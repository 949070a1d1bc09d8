"""What `bsm infer` says at its end: a line for people, a document for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bsmamba2.errors import one_line

if TYPE_CHECKING:
    from bsmamba2.runtime.songs.jobs import Job
    from bsmamba2.runtime.songs.separate_files import Report
    from bsmamba2.runtime.songs.sources import Failure


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

    def document(self) -> dict[str, Any]:
        """Figures of the whole."""
        return {
            "jobs": self.jobs,
            "batch": self.batch,
            "elapsed_s": round(self.elapsed_s, 3),
            "engine_share": round(self.engine_share, 4),
        }


def summary(run: Run | None, skipped: Sequence[Job]) -> str:
    """For people: a row for each of several songs, then how much audio took which time."""
    lines = []
    if skipped:
        count = "1 song is" if len(skipped) == 1 else f"{len(skipped)} songs are"
        lines.append(f"{count} there already.")
    if run and run.reports:
        if len(run.reports) > 1:
            lines += table(run.reports)
        lines.append(_total(run))
    return "".join(line + "\n" for line in lines)


def table(reports: Sequence[Report]) -> list[str]:
    """Song, length, time taken and speed, in columns."""
    rows = [("song", "length", "took", "x real time")]
    for report in reports:
        times = clock(report.duration_s), clock(report.elapsed_s)
        rows.append((one_line(report.source), *times, f"{1 / report.real_time_factor:.1f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"{name:{widths[0]}}  {length:>{widths[1]}}  {took:>{widths[2]}}  {speed:>{widths[3]}}"
        for name, length, took, speed in rows
    ]


def clock(seconds: float | None) -> str:
    """A duration for people: 0:03.2, 3:25, 1:02:03."""
    if seconds is None:
        return "?:??"
    if seconds < 59.95:
        return f"0:{seconds:04.1f}"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _total(run: Run) -> str:
    audio_s = sum(report.duration_s for report in run.reports)
    files = "1 file" if len(run.reports) == 1 else f"{len(run.reports)} files"
    return (
        f"{files}, {audio_s:.1f} s of audio in {run.elapsed_s:.1f} s: "
        f"real-time factor {run.elapsed_s / audio_s:.3f} "
        f"({audio_s / run.elapsed_s:.1f} x real time), "
        f"the engine at work {run.engine_share:.0%} of the time"
    )


def document(
    engine: dict[str, Any] | None,
    run: Run | None,
    skipped: Sequence[Job],
    failures: Sequence[Failure],
) -> dict[str, Any]:
    """What `--json` prints.

    Args:
        engine: What it is; None if there was nothing to separate.
        run: None as well.
        skipped: Songs that an earlier run has done.
        failures: Inputs that gave nothing.
    """
    return {
        "engine": engine,
        "run": run and run.document(),
        "files": [_file(report) for report in run.reports] if run else [],
        "skipped": [job.name for job in skipped],
        "failed": [{"input": failure.source, "error": failure.error} for failure in failures],
    }


def _file(report: Report) -> dict[str, Any]:
    return {
        "input": report.source,
        "outputs": {stem: str(path) for stem, path in report.outputs.items()},
        "picture": report.picture and str(report.picture),
        "duration_s": report.duration_s,
        "elapsed_s": round(report.elapsed_s, 3),
        "real_time_factor": round(report.real_time_factor, 4),
        "engine_share": round(report.engine_share, 4),
        "stages_s": {stage: round(seconds, 3) for stage, seconds in report.stages_s.items()},
        "sample_rate": report.sample_rate,
        "channels": report.channels,
    }
