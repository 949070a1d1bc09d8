"""A network of another package in a process and an environment of its own.

    python bench/timing/peers/worker.py JOB

JOB is a `Job` as JSON, its kind a name of `catalogue.PEERS`. The environment is the peers' own and
knows nothing of this project.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import random
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

from catalogue import PEERS

sys.path.append(str(Path(__file__).resolve().parents[3]))  # the checkout

from bench.common.job import Job, Task, serve

SEED = 0


def start(job: Job) -> tuple[Task, dict[str, Any]]:
    """Makes the network; a task is a chunk of noise through it."""
    peer = PEERS[job.kind]
    torch = importlib.import_module("torch")
    if job.threads:
        torch.set_num_threads(job.threads)
    torch.manual_seed(SEED)
    random.seed(SEED)
    arguments = dict(peer.arguments)
    if "segment" in arguments:  # HTDemucs wants it exact
        arguments["segment"] = Fraction(str(arguments["segment"]))
    network = getattr(importlib.import_module(peer.module), peer.network)(**arguments).eval()
    seconds = peer.chunk_s or job.seconds
    samples = 0.1 * torch.randn(1, 2, round(seconds * peer.sample_rate))

    def task() -> dict[str, Any]:
        begin = time.perf_counter()
        with torch.inference_mode():
            stems = network(samples)
        whole_s = time.perf_counter() - begin
        if not bool(torch.isfinite(stems).all()):
            raise RuntimeError(f"{job.kind} gives numbers that are not finite.")
        return {"whole_s": whole_s}

    return task, {
        "package": peer.distribution,
        "version": importlib.metadata.version(peer.distribution),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "configuration": peer.configuration,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "audio_s": seconds,
        "sample_rate": peer.sample_rate,
        "stems": list(peer.stems),
    }


if __name__ == "__main__":
    serve(start, ImportError, RuntimeError)
