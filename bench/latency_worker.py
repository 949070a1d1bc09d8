"""One job of `latency.py` in a process of its own.

    python bench/latency_worker.py JOB

JOB is a `Job` as JSON; see `job.py` for what is said.
"""

from __future__ import annotations

from typing import Any

from job import Job, Task, serve

from bsmamba2.errors import BsmError


def start(job: Job) -> tuple[Task, dict[str, Any]]:
    """What to do for each line, and a description of it; imports what the job needs only."""
    if job.kind == "prepare":
        from latency_engines import prepare

        return dict, prepare(job)
    if job.kind in ("gemm", "gemm-int8", "memory"):
        import latency_rates

        return latency_rates.rate(job)
    if job.kind in ("length", "batch"):
        import latency_growth

        return latency_growth.growth(job)
    if job.kind == "sequential-scan":
        from peers.sequential import sequential

        return sequential(job)
    if job.kind.startswith("profile-"):
        import latency_profile

        return latency_profile.profile(job)
    from latency_engines import chunk, load

    engine = load(job)
    return chunk(job, engine), engine.describe() | {"audio_s": job.seconds}


if __name__ == "__main__":
    serve(start, BsmError)
