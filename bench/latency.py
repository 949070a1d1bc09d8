"""Seconds, shares and memory of one chunk on this CPU, engine against engine.

    python bench/latency.py [--config tiny] [--rounds 5] [--json] [-o bench/results/FILE.json]

A chunk's way is that of `bsm infer`: STFT, engine, mask product, inverse STFT. Every engine has a
process of its own and computes when it is its turn, so that what disturbs the machine disturbs
all alike; ratios are made within a round, and the masks are compared in the same run. Absolute
times move with the machine: quote the ratios.

The JSON (seconds end in _s, a summary is {median, min, max} over the rounds after the warm-up):

    machine, versions, command, date      where, with what and how; load average at start and end
    model, chunk, rounds, threads         what was computed; model.onnx says where the file is from
    flops                                 of the network by part, and their total
    gemm                                  float32 rate at the shape of in_proj; floor_s at that rate
    agreement                             relative RMS of the masks to `reference`; who is `wrong`
    engines.NAME                          whole_s, real_time_factor (computing over audio time),
                                          share of each part, ratio_to_onnxruntime (whole chunk),
                                          ratio_to_gemm_floor (network alone), peak_memory_mib of
                                          the process, load_s, warm_up and rounds one by one
    skipped, failed                       engine -> why it has no row

An engine whose mask is wrong gets no ratio, and the exit status is 1.

Reading order: this file, latency_rounds.py (turns), latency_worker.py (one engine's process),
latency_report.py (figures and table), flops.py, machine.py.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from flops import in_proj_shape, network_flops
from latency_report import BASE, engine_figures, lines, summary
from latency_rounds import Measured, Process, take_turns
from latency_worker import Job
from machine import describe_machine, describe_versions, load_average

from bsmamba2.artefact import Artefact, read_metadata
from bsmamba2.config import ModelConfig, load_config
from bsmamba2.doctor import version
from bsmamba2.errors import BsmError, EngineError, MissingExtraError
from bsmamba2.files import atomic_path, existing_file, read_safetensors_header
from bsmamba2.onnx_file import read_onnx_file
from bsmamba2.parity import LIMITS
from bsmamba2.tensors import parameter_count

MAX_RELATIVE_RMS = LIMITS["float32"].relative_rms
"""Of a mask against the reference's."""
ENGINES = ("pytorch", "pytorch-folded", BASE)
"""In the order of the table; the first that runs is the masks' reference."""
FORMAT = 1
"""Of the JSON."""
_NEEDS = {"train": ("torch", "safetensors"), "export": ("torch", "onnx", "onnxscript")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 1 also when an engine failed or computes another mask."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    try:
        head: dict[str, Any] = {
            "benchmark": "latency",
            "format": FORMAT,
            "command": _command(arguments),
        }
        report = head | measure(options)
        text = json.dumps(report, indent=2)
        if options.output:
            with atomic_path(options.output) as partial:
                partial.write_text(text + "\n")
    except BsmError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    print(text if options.json else "\n".join(lines(report)))
    return 1 if report["failed"] or report["agreement"]["wrong"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/latency.py", description="Latency of one chunk on this CPU, by engine."
    )
    add = parser.add_argument
    add("--config", default="bsmamba2", help="network of random weights (default: %(default)s)")
    add("--weights", type=Path, metavar="FILE", help=".safetensors to take in place of --config")
    add("--onnx", type=Path, metavar="FILE", help="ONNX file of it; without, one is exported")
    add("--rounds", type=_positive(int), default=5, help="after the warm-up (default: %(default)s)")
    add("--seconds", type=_positive(float), default=8.0, help="of audio (default: %(default)s)")
    add("--engines", nargs="+", choices=ENGINES, default=ENGINES, help="(default: all)")
    add("--threads", type=_positive(int), help="of each engine (default: its own choice)")
    add("--json", action="store_true", help="print JSON in place of the table")
    add("-o", "--output", type=Path, metavar="FILE", help="write the JSON to a file, too")
    return parser


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} must be above 0")
        return value

    return number


def _command(arguments: Sequence[str]) -> str:
    """The command line, absolute paths cut to their last part."""
    short = []
    for argument in arguments:
        option, equals, value = argument.rpartition("=")
        path = Path(value)
        short.append(option + equals + (path.name if path.is_absolute() else value))
    return shlex.join(["python", "bench/latency.py", *short])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures everything and gives the report, plain values.

    Raises:
        BsmError: Unusable files, too short a chunk, or no engine that can run.
    """
    machine, load = describe_machine(), load_average()
    skipped = _skipped(options)
    names = [name for name in ENGINES if name in options.engines and name not in skipped]
    if not names:
        raise EngineError(" ".join(skipped.values()))
    model, source = _model(options, names)
    frames = _frames(options.seconds, model)
    with tempfile.TemporaryDirectory(prefix="bsm-latency-") as folder:
        jobs = _prepare(options, names, Path(folder))
        shape = in_proj_shape(model, frames)
        gemm = {"gemm": Job(kind="gemm", threads=options.threads, shape=shape)}
        measured = take_turns(gemm | jobs, options.rounds, _say)
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine | {"load_average": {"start": load, "end": load_average()}},
        "versions": describe_versions(),
        "model": source | {"parameters": parameter_count(model)},
        "chunk": {"seconds": options.seconds, "frames": frames, "tokens": shape[0]},
        "rounds": options.rounds,
        "threads": options.threads,
        **_results(measured, network_flops(model, frames), options.seconds, shape),
        "skipped": skipped,
        "failed": measured.failed,
    }


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _skipped(options: argparse.Namespace) -> dict[str, str]:
    """Engines that were asked for and lack an extra, with a sentence each."""
    skipped = {}
    for name in options.engines:
        extra = "train" if name != BASE else "export" if options.onnx is None else None
        if extra and not all(map(version, _NEEDS[extra])):
            what = "It runs in PyTorch and" if extra == "train" else "Without --onnx, it"
            skipped[name] = f"{MissingExtraError(what, extra)}."
            _say(f"{name}: skipped. {skipped[name]}")
    return skipped


def _model(options: argparse.Namespace, names: Sequence[str]) -> tuple[ModelConfig, dict[str, Any]]:
    """The network to measure, and words for the report on where it comes from."""
    onnx = options.onnx and _onnx_artefact(options.onnx)
    words = "none" if BASE not in names else "exported in this run, without the gate of bsm export"
    if onnx:
        words = f"{options.onnx.name}, {onnx.provenance.source}"
    if onnx and names == [BASE]:
        return onnx.model, {"weights": onnx.provenance.source, "onnx": words}
    if options.weights:
        _, metadata = read_safetensors_header(existing_file(options.weights))
        artefact = read_metadata(metadata, options.weights)
        model, weights = artefact.model, artefact.provenance.source
    else:
        model = load_config(options.config).model
        weights = f"random weights of {Path(options.config).name}"
    if onnx and onnx.model != model:
        raise EngineError(
            f"{options.onnx} is another network than {options.weights or options.config}: "
            "name its configuration with --config or its checkpoint with --weights."
        )
    return model, {"weights": weights, "onnx": words}


def _onnx_artefact(path: Path) -> Artefact:
    return read_metadata(read_onnx_file(path).metadata, path)


def _frames(seconds: float, model: ModelConfig) -> int:
    audio = model.audio
    samples = round(seconds * audio.sample_rate)
    if samples <= audio.n_fft:
        raise EngineError(f"{seconds:g} s are no chunk: it needs more than {audio.n_fft} samples.")
    return 1 + samples // audio.hop


def _prepare(options: argparse.Namespace, names: Sequence[str], folder: Path) -> dict[str, Job]:
    """Makes the files that are not there, and the engines' jobs."""
    weights = options.weights or folder / "model.safetensors"
    onnx = options.onnx or folder / "model.onnx"
    wants_weights = not options.weights and any(name != BASE for name in names)
    wants_onnx = not options.onnx and BASE in names
    if wants_weights or wants_onnx:
        _say("making the files of the network; the export goes without the gate of bsm export")
        Process(
            Job(
                kind="prepare",
                file=str(options.weights or options.config),
                weights=str(weights) if wants_weights else "",
                onnx=str(onnx) if wants_onnx else "",
            )
        ).close()
    return {
        name: Job(
            kind=name,
            threads=options.threads,
            seconds=options.seconds,
            file=str(onnx if name == BASE else weights),
            mask=str(folder / f"{name}.npy"),
        )
        for name in names
    }


def _results(
    measured: Measured, flops: dict[str, float], seconds: float, shape: Sequence[int]
) -> dict[str, Any]:
    """FLOPs, matrix rate, agreement and a row for each engine."""
    if "gemm" in measured.failed:
        raise EngineError(f"The matrix product failed: {measured.failed['gemm']}")
    total, gemm = sum(flops.values()), measured.rounds["gemm"]
    gflops = summary(each["gflops"] for each in gemm[1:])
    wrong = [name for name, rms in measured.relative_rms.items() if not rms <= MAX_RELATIVE_RMS]
    base = None if BASE in wrong else measured.rounds.get(BASE)
    engines = {
        name: measured.about[name]
        | engine_figures(
            rounds, gemm, None if name in wrong else base, seconds=seconds, flops=total
        )
        for name, rounds in measured.rounds.items()
        if name != "gemm"
    }
    return {
        "flops": flops | {"total": total},
        "gemm": measured.about["gemm"]
        | {"shape": shape, "gflops": gflops, "floor_s": total / gflops["median"] / 1e9},
        "agreement": {
            "reference": measured.reference,
            "limit": MAX_RELATIVE_RMS,
            "relative_rms": {  # None: a mask with NaN or Inf
                name: rms if math.isfinite(rms) else None
                for name, rms in measured.relative_rms.items()
            },
            "wrong": wrong,
        },
        "engines": engines,
    }


if __name__ == "__main__":
    sys.exit(main())
