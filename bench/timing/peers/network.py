"""A network of another package, in an environment without this project."""

from __future__ import annotations

import importlib
import importlib.metadata
import random
import time
from fractions import Fraction
from typing import Any

import torch

from bench.timing.peers.catalogue import PEERS
from bench.timing.worker import Task


def network(*, name: str, threads: int | None, seconds: float) -> tuple[Task, dict[str, Any]]:
    """Runs a chunk of noise through a network of PEERS."""
    peer = PEERS[name]
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    random.seed(0)
    arguments = dict(peer.arguments)
    if "segment" in arguments:  # HTDemucs requires a fraction
        arguments["segment"] = Fraction(str(arguments["segment"]))
    model = getattr(importlib.import_module(peer.module), peer.network)(**arguments).eval()
    seconds = peer.chunk_s or seconds
    samples = 0.1 * torch.randn(1, 2, round(seconds * peer.sample_rate))

    def task() -> dict[str, Any]:
        start = time.perf_counter()
        with torch.inference_mode():
            stems = model(samples)
        whole_s = time.perf_counter() - start
        if not bool(torch.isfinite(stems).all()):
            raise RuntimeError(f"{name} returned numbers that are not finite.")
        return {"whole_s": whole_s}

    package = peer.requirement.partition("==")[0]
    return task, {
        "package": package,
        "version": importlib.metadata.version(package),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "configuration": peer.configuration,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "audio_s": seconds,
        "sample_rate": peer.sample_rate,
        "stems": list(peer.stems),
    }
