"""One job of `latency.py` in a process of its own.

    python bench/timing/worker.py JOB

JOB is a `Job` as JSON; see `job.py` for what is said.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout

from bench.common.job import Job, Task, serve
from bsmamba2.errors import BsmError


def start(job: Job) -> tuple[Task, dict[str, Any]]:
    """What to do for each line, and a description of it; imports what the job needs only."""
    if job.kind == "prepare":
        from bench.timing.engines import prepare

        return dict, prepare(job)
    if job.kind in ("gemm", "gemm-int8", "memory"):
        from bench.timing import rates as latency_rates

        return latency_rates.rate(job)
    if job.kind in ("length", "batch"):
        from bench.timing import growth as latency_growth

        return latency_growth.growth(job)
    if job.kind == "sequential-scan":
        from bench.timing.peers.sequential import sequential

        return sequential(job)
    if job.kind.startswith("profile-"):
        from bench.timing import operators as latency_profile

        return latency_profile.profile(job)
    from bench.timing.engines import chunk, load

    engine = load(job)
    return chunk(job, engine), engine.describe() | {"audio_s": job.seconds}


if __name__ == "__main__":
    serve(start, BsmError)
