"""One part of `measure.py` in a process of its own.

    python bench/gpu/worker.py JOB

JOB is a `Job` as JSON. An illegal access ends the CUDA context of its whole process: this way it
ends one part only, whose earlier figures are saved.
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
from types import ModuleType

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout

FUNCTIONS = {
    "gpu": "machine.gpu",
    "kernels": "network.kernels",
    "parity": "scan.parity",
    "mask": "network.mask",
    "scan": "scan.times",
    "network": "network.times",
    "song": "song.song",
    "plan": "plan.plan",
    "sanitizer": "watched.sanitizer",
    "profile": "watched.profile",
    "warm": "scan.warm",  # in the background: see part1.sh
    "cases": "watched.cases",  # what the sanitizer and ncu watch
}
"""Part -> module and function, in the order they run."""


def main() -> int:
    """Runs one part; returns 1 if it failed."""
    import torch

    from bench.gpu.clock import reason
    from bench.gpu.part import Job, Part, Skipped

    # A warning about the network as published in autocast, whose norms have float32 weights.
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
    job = Job(**json.loads(sys.argv[1]))
    part = Part(job)
    logging.getLogger().addHandler(_Collector(part.values.setdefault("logged", [])))
    try:
        if job.library:
            os.environ["BSM_SCAN_LIBRARY"] = job.library
        if job.mamba_ssm:
            _use_mamba_ssm(Path(job.mamba_ssm))
        if not job.rehearsal and not torch.cuda.is_available():
            raise RuntimeError("PyTorch finds no CUDA GPU here; --rehearse needs none")
        module, function = FUNCTIONS[job.part].split(".")
        getattr(importlib.import_module(f"bench.gpu.{module}"), function)(part)
    except Skipped as why:
        part.values["skipped"] = str(why)
    except Exception as error:
        traceback.print_exc()
        part.values["error"] = reason(error)
    part.save()
    return 1 if "error" in part.values else 0


def _use_mamba_ssm(folder: Path) -> None:
    """Makes `import mamba_ssm` use a checkout of state-spaces/mamba, without its __init__.

    The __init__ imports every model of the package and CUDA extensions that the scan does not need.
    """
    if not (folder / "mamba_ssm/ops/triton/ssd_combined.py").is_file():
        raise FileNotFoundError(f"{folder} is not a checkout of state-spaces/mamba")
    module = ModuleType("mamba_ssm")
    module.__path__ = [str(folder / "mamba_ssm")]
    sys.modules["mamba_ssm"] = module


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
