"""Makes the report that the options ask for: what runs here, its files, the turns, the figures."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.common.flops import in_proj_shape, network_flops
from bench.common.machine import load_average
from bench.timing.figures import RATES, results
from bench.timing.growth import growth_figures
from bench.timing.peers.catalogue import NAMES, PEERS, SEQUENTIAL
from bench.timing.peers.environment import make_environment
from bench.timing.turns import Job, Measured, Process, say, take_turns
from bsmamba2.cli.doctor_checks import version
from bsmamba2.config.file import load_config
from bsmamba2.config.model import ModelConfig
from bsmamba2.errors import BsmError, EngineError, MissingExtraError
from bsmamba2.formats.metadata import Metadata, parse_metadata
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.formats.tensors import parameter_count
from bsmamba2.plugins.cpu_library import find_cpu_library
from bsmamba2.system.files import existing_file, read_safetensors_header

ENGINES = {
    "pytorch": "weights",
    "pytorch-folded": "weights",
    "onnx-body": "onnx",
    "onnx-native": "onnx",
    "onnx-int8": "int8",
    "plan": "plan",
}
"""Row -> kind of its file, in the table's order; the first that runs is the masks' reference."""
_FILES = ENGINES | {SEQUENTIAL: "weights"}
_NEEDS = {"train": ("torch", "safetensors"), "export": ("torch", "onnx", "onnxscript")}
Report = dict[str, Any]


def measure(options: argparse.Namespace, head: Report, save: Callable[[Report], None]) -> Report:
    """Measures everything and returns the report, as plain values.

    Args:
        options: Options of `latency.py`.
        head: Head of the report.
        save: Called with the unfinished report after each round.

    Raises:
        BsmError: A file is unusable, the chunk is too short, or nothing can run.
    """
    machine, load = head["machine"], head.pop("load_average")
    skipped = {}
    for name in (*RATES, *options.engines, *options.peers):
        if why := _why_not(options, name):
            skipped[name] = why
            say(f"{name}: skipped. {why}")
    names = [name for name in ENGINES if name in options.engines and name not in skipped]
    peers = [name for name in NAMES if name in options.peers]
    if not names and not peers:
        raise EngineError(" ".join(skipped.values()) or "Nothing to measure: name --engines.")
    model, source = _network(options, names)
    samples = round(options.seconds * model.audio.sample_rate)
    if samples <= model.audio.n_fft:
        raise EngineError(
            f"{options.seconds:g} s is too short: a chunk needs more than {model.audio.n_fft} "
            "samples."
        )
    frames = 1 + samples // model.audio.hop
    shape = in_proj_shape(model, frames)
    failed: dict[str, str] = {}
    parts: Report = {"growth": {}, "profile": {}}

    def report(measured: Measured, *, complete: bool = False) -> Report:
        return (
            head
            | {
                "complete": complete,
                "machine": machine | {"load_average": {"start": load, "end": load_average()}},
                "model": source | {"parameters": parameter_count(model)},
                "chunk": {"seconds": options.seconds, "frames": frames, "tokens": shape[0]},
                "threads": options.threads,
                "flops": network_flops(model, frames),
            }
            | results(measured, model, frames, options.seconds, names)
            | parts
            | {"skipped": skipped, "failed": failed | measured.failed}
        )

    brief = min(
        1.0, options.seconds / 8
    )  # rates need not be more accurate than a short chunk's time
    arguments = {"shape": shape, "seconds": brief, "threads": options.threads}
    jobs = {
        name: Job(f"rates:{name.replace('-', '_')}", arguments)
        for name in RATES
        if name not in skipped
    }
    with tempfile.TemporaryDirectory(prefix="bsm-latency-") as folder:
        files = _files(options, [*names, *peers], Path(folder))
        jobs |= _rows(options, names, peers, files, Path(folder))
        jobs |= _peers(options, [name for name in peers if name in PEERS], failed)
        measured = take_turns(jobs, options.rounds, lambda so_far: save(report(so_far)))
        if options.profile:
            parts["profile"] = _profiles(jobs, measured, failed)
    if options.growth:
        parts["growth"] = _growth(options, failed)
    return report(measured, complete=True)


def _why_not(options: argparse.Namespace, name: str) -> str | None:
    """Says in a sentence why a row cannot be measured; None if it can."""
    if name == "plan" and not options.plan:
        return "Plans need an NVIDIA GPU: name one with --plan; bench/gpu/measure.py builds plans."
    if name == "gemm-int8" and not version("onnx"):
        return f"{MissingExtraError('Its graph', 'export')}."
    if name == "onnx-native" and not find_cpu_library():
        return "The native scan is not installed: 'bsm doctor' says what is missing."
    if name == "onnx-int8" and options.onnx and not (options.int8 or options.weights):
        return f"{options.onnx.name} may have other weights: name its int8 file with --int8."
    kind = _FILES.get(name)
    extra, what = "train", "It runs in PyTorch and"
    if kind in ("onnx", "int8"):
        if getattr(options, kind):
            return None
        extra, what = "export", f"Without --{kind}, it"
    elif kind != "weights":
        return None
    return None if all(map(version, _NEEDS[extra])) else f"{MissingExtraError(what, extra)}."


def _network(options: argparse.Namespace, names: Sequence[str]) -> tuple[ModelConfig, Report]:
    """The network to measure, and the origin of its files for the report."""
    kinds = {ENGINES[name] for name in names}
    onnx, own = options.onnx and _metadata(options.onnx), None
    words = "exported in this run, without the gate of bsm export"
    if onnx:
        words = f"{options.onnx.name}, {onnx.provenance.source}"
    elif not kinds & {"onnx", "int8"}:
        words = "none"
    if options.weights:
        _, pairs = read_safetensors_header(existing_file(options.weights))
        own = parse_metadata(pairs, options.weights)
    elif onnx and kinds <= {"onnx", "int8"}:
        own = onnx
    model = own.model if own else load_config(options.config).model
    for path in (options.onnx, options.int8):
        if path and _metadata(path).model != model:
            raise EngineError(
                f"{path} is a different network from {options.weights or options.config}: "
                "name its configuration with --config or its checkpoint with --weights."
            )
    weights = own.provenance.source if own else f"random weights of {Path(options.config).name}"
    return model, {"weights": weights, "onnx": words}


def _metadata(onnx: Path) -> Metadata:
    return parse_metadata(read_onnx_file(onnx).metadata, onnx)


def _files(
    options: argparse.Namespace, names: Sequence[str], folder: Path
) -> dict[str, Path | None]:
    """The network's files by kind; makes those that are needed but were not named."""
    made = {
        "weights": folder / "model.safetensors",
        "onnx": folder / "model.onnx",
        "int8": folder / "model.int8.onnx",
    }
    files = made | {"plan": None}
    files |= {kind: path for kind in files if (path := getattr(options, kind))}
    needed = {_FILES[name] for name in names if name in _FILES}
    missing = {kind: path for kind, path in made.items() if kind in needed and files[kind] == path}
    if missing:
        say("making the network's files; the export skips the gate of bsm export")
        source = options.weights or options.config
        Process(Job("engines:prepare", {"source": source, "paths": missing})).close()
    return files


def _rows(
    options: argparse.Namespace,
    names: Sequence[str],
    peers: Sequence[str],
    files: Mapping[str, Path | None],
    folder: Path,
) -> dict[str, Job]:
    """Returns the jobs that run in this project's own environment."""
    common = {"threads": options.threads, "seconds": options.seconds}
    jobs = {}
    for name in names:
        own = {"kind": name, "file": files[ENGINES[name]], "mask": folder / f"{name}.npy"}
        jobs[name] = Job("engines:chunk", common | own)
    if SEQUENTIAL in peers:
        weights = {"file": files["weights"]}
        jobs[SEQUENTIAL] = Job("peers.sequential:sequential", common | weights)
    return jobs


def _peers(
    options: argparse.Namespace, names: Sequence[str], failed: dict[str, str]
) -> dict[str, Job]:
    """Returns the jobs of other packages; if these cannot be installed, `failed` says why."""
    if not names:
        return {}
    try:
        python = make_environment()
    except BsmError as error:
        say(str(error))
        failed.update(dict.fromkeys(names, str(error)))
        return {}
    common = {"threads": options.threads, "seconds": options.seconds}
    return {name: Job("peers.network:network", common | {"name": name}, python) for name in names}


def _profiles(
    jobs: Mapping[str, Job], measured: Measured, failed: dict[str, str]
) -> dict[str, Report]:
    """ONNX Runtime's profile of each of its engines that was measured."""
    wanted = {}
    for name in ("onnx-body", "onnx-native", "onnx-int8"):
        if name in measured.rounds:
            arguments = {key: v for key, v in jobs[name].arguments.items() if key != "mask"}
            wanted[name] = Job("operators:profile", arguments)
    profiled = take_turns(wanted, 0)
    failed |= {f"profile-{name}": why for name, why in profiled.failed.items()}
    return {name: rounds[0] for name, rounds in profiled.rounds.items()}


def _growth(options: argparse.Namespace, failed: dict[str, str]) -> dict[str, Report]:
    """Growth of one engine's cost with the length of a song and with the size of a batch."""
    common = {"file": options.growth_engine or "default", "threads": options.threads}
    counts = {"length": options.lengths, "batch": options.batches}
    jobs = {
        kind: Job("growth:growth", common | {"kind": kind, "counts": numbers})
        for kind, numbers in counts.items()
    }
    grown = take_turns(jobs, options.rounds)
    failed |= {f"growth with {name}": why for name, why in grown.failed.items()}
    return {
        name: growth_figures(grown.about[name], rounds) for name, rounds in grown.rounds.items()
    }
