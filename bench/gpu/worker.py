"""One part of `gpu.py` in a process of its own.

    python bench/gpu/worker.py JOB

JOB is a `Job` as JSON. An illegal access ends the CUDA context of a whole process: in one of its
own it ends a part, and what that had measured before is saved.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import traceback
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout

from bench.common.checkout import use_mamba_ssm

FUNCTIONS = {
    "gpu": ("gpu_machine", "gpu"),
    "build": ("gpu_machine", "build"),
    "parity": ("gpu_scan", "parity"),
    "scan": ("gpu_scan", "times"),
    "mask": ("gpu_network", "mask"),
    "network": ("gpu_network", "times"),
    "song": ("gpu_song", "song"),
    "plan": ("gpu_plan", "plan"),
    "sanitizer": ("gpu_sanitizer", "sanitizer"),
    "profile": ("gpu_profile", "profile"),
}
"""Part -> module and function, in the order they run."""


def main() -> int:
    """Computes one part; returns 1 when it failed."""
    import torch

    from bench.gpu.clock import Clock, reason
    from bench.gpu.part import Job, Part, Skipped

    # Of the published network in autocast, whose norms have float32 weights.
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
    job = Job(**json.loads(sys.argv[1]))
    device = torch.device("cpu" if job.rehearsal else "cuda")
    part = Part(job, Clock(device, rehearsal=job.rehearsal))
    logging.getLogger().addHandler(_Collector(part.values.setdefault("logged", [])))
    try:
        if job.library:
            os.environ["BSM_SCAN_LIBRARY"] = job.library
        if job.mamba_ssm:
            use_mamba_ssm(Path(job.mamba_ssm))
        if not job.rehearsal and not torch.cuda.is_available():
            raise RuntimeError("PyTorch finds no CUDA GPU here; --rehearse needs none")
        module, function = FUNCTIONS[job.part]
        getattr(importlib.import_module(module), function)(part)
    except Skipped as why:
        part.values["skipped"] = str(why)
    except Exception as error:
        traceback.print_exc()
        part.values["error"] = reason(error)
    part.save()
    return 1 if "error" in part.values else 0


class _Collector(logging.Handler):
    """Keeps each warning once: "the scan takes the chunked form" changes what a figure means."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        line = record.getMessage()
        if line not in self._lines:
            self._lines.append(line)
            print(f"  warning: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
