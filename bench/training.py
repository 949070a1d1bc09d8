"""Loss, time and memory of a few training steps on this machine.

    python bench/training.py [--config bsmamba2] [--steps 2] [--no-checkpointing]
                             [-o bench/results/FILE.json]

Steps are those of `bsm train` (`bsmamba2.training.step`), with a batch of one and no gradient
accumulation, on a GPU if there is one. The item is noise, which takes as long as music. By default,
blocks are recomputed in the backward pass (training.checkpoint_gradients).

The JSON (seconds end in _s):

    machine, versions, command, date      where, with what and how; load average at start and end
    model, precision, device, chunk_s     what was computed
    steps                                 loss, waveform, spectral, gradient_norm, step_s of each
    peak_memory_mib                       of the process, and on a GPU of its memory
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the checkout

from bench.common.machine import load_average
from bench.common.report import report_head, write_report
from bsmamba2.config.file import Config, load_config, override_config
from bsmamba2.errors import BsmError


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    try:
        report = measure(options, report_head(__file__, arguments))
        if options.output:
            write_report(options.output, report)
    except BsmError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report, indent=2))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Time and memory of training steps.")
    parser.add_argument(
        "--config", default="bsmamba2", help="name or YAML file (default: bsmamba2)"
    )
    parser.add_argument("--steps", type=int, default=2, help="number of steps (default: 2)")
    parser.add_argument(
        "--no-checkpointing", action="store_true", help="keep all activations in memory"
    )
    parser.add_argument("-o", "--output", type=Path, help="also write the JSON to this file")
    return parser


def measure(options: argparse.Namespace, head: dict[str, Any]) -> dict[str, Any]:
    """Runs the steps; returns the report with its head."""
    settings = ["batch_size=1", "accumulation=1"]
    settings.append(f"checkpoint_gradients={'false' if options.no_checkpointing else 'true'}")
    config = override_config(load_config(options.config), [f"training.{one}" for one in settings])
    steps, device = _steps(config, options.steps)
    return head | {
        "load_average": [head["load_average"], load_average()],
        "model": options.config,
        "precision": config.training.precision,
        "checkpoint_gradients": config.training.checkpoint_gradients,
        "chunk_s": config.audio.chunk_s,
        "device": device,
        "steps": steps,
        "peak_memory_mib": _peak_memory_mib(),
    }


def _steps(config: Config, count: int) -> tuple[list[dict[str, Any]], str]:
    """Runs steps on one item of noise; returns their records and the device."""
    import torch

    from bsmamba2.data.mixing import TrainingBatch
    from bsmamba2.training.distributed import joined
    from bsmamba2.training.state import new_state
    from bsmamba2.training.step import Stepper

    stems = 0.1 * torch.randn(
        2, 1, config.audio.channels, config.audio.chunk_samples,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    batch = TrainingBatch(mixture=stems.sum(0), target=stems[0], sources=("noise",), unreadable=())
    records = []
    with joined() as processes:
        stepper = Stepper(new_state(config, processes.device), config, processes)
        for _ in range(count):
            record, _ = stepper.step(iter([batch]))
            print(f"step {record['step']}: {record['step_s']:.1f} s", file=sys.stderr)
            kept = ("step", "loss", "waveform", "spectral", "gradient_norm", "step_s")
            records.append({name: record[name] for name in kept})
        return records, processes.device.type


def _peak_memory_mib() -> dict[str, int]:
    """Peak of this process's main memory, and of a GPU's if one was used."""
    import torch

    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}  # KiB on Linux
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated() >> 20
    return peak


if __name__ == "__main__":
    sys.exit(main())
