"""From the options to a report: what runs here, the files it needs, the turns, the figures."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.common.flops import in_proj_shape, network_flops
from bench.common.job import Job
from bench.common.machine import load_average
from bench.timing.growth import growth_figures
from bench.timing.peers import catalogue
from bench.timing.peers.environment import make_environment, requirements
from bench.timing.report import results
from bench.timing.rounds import Measured, Process, Say, take_turns
from bsmamba2.cli.doctor_checks import version
from bsmamba2.config.file import load_config
from bsmamba2.config.model import ModelConfig
from bsmamba2.errors import BsmError, EngineError, MissingExtraError
from bsmamba2.formats.metadata import Metadata, parse_metadata
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.formats.tensors import parameter_count
from bsmamba2.system.files import existing_file, read_safetensors_header

TORCH = ("pytorch", "pytorch-folded")
ONNX = ("onnx-body", "onnx-native", "onnx-int8")
ENGINES = (*TORCH, *ONNX, "plan")
"""In the order of the table; the first that runs is the masks' reference."""
RATES = ("gemm", "gemm-int8", "memory")
_NEEDS = {"train": ("torch", "safetensors"), "export": ("torch", "onnx", "onnxscript")}
_NO_PLAN = (
    "Plans run on NVIDIA GPUs: name one with --plan where there is one; "
    "bench/gpu/plan.py builds and measures plans."
)
Report = dict[str, Any]


def measure(
    options: argparse.Namespace, head: Report, say: Say, save: Callable[[Report], None]
) -> Report:
    """Measures everything and gives the report, plain values.

    Args:
        options: Of `latency.py`.
        head: What the report begins with.
        say: Called with a sentence at each step.
        save: Called with the report as far as it is, after each round.

    Raises:
        BsmError: Unusable files, too short a chunk, or nothing that can run.
    """
    machine, load = head["machine"], head.pop("load_average")
    skipped = _skipped(options, say)
    names = [name for name in ENGINES if name in options.engines and name not in skipped]
    others = [name for name in catalogue.NAMES if name in options.peers and name not in skipped]
    if not names and not others:
        raise EngineError(" ".join(skipped.values()) or "Nothing to measure: name --engines.")
    model, source = _model(options, names)
    frames = _frames(options.seconds, model)
    shape = in_proj_shape(model, frames)
    failed: dict[str, str] = {}
    parts: Report = {"growth": {}, "profile": {}}

    def report(measured: Measured, *, complete: bool = False) -> Report:
        figures = results(measured, model, frames, options.seconds, names)
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
            | figures
            | parts
            | {"skipped": skipped | measured.skipped, "failed": failed | measured.failed}
        )

    with tempfile.TemporaryDirectory(prefix="bsm-latency-") as folder:
        jobs = _prepare(options, names, others, Path(folder), say)
        jobs |= _peer_jobs(options, others, failed, say)
        brief = min(1.0, options.seconds / 8)  # a short chunk needs no better rates
        rates = {
            kind: Job(kind=kind, threads=options.threads, shape=shape, seconds=brief)
            for kind in RATES
        }
        measured = take_turns(
            rates | jobs, options.rounds, say, lambda so_far: save(report(so_far))
        )
        if options.profile:
            parts["profile"] = _profiles(jobs, measured, failed, say)
    if options.growth:
        parts["growth"] = _growth(options, failed, say)
    return report(measured, complete=True)


def _skipped(options: argparse.Namespace, say: Say) -> dict[str, str]:
    """What was asked for and cannot run here, with a sentence each."""
    skipped = {}
    for name in (*options.engines, *options.peers):
        why = _why_not(options, name)
        if why:
            skipped[name] = why
            say(f"{name}: skipped. {why}")
    return skipped


def _why_not(options: argparse.Namespace, name: str) -> str | None:
    if name == "plan":
        return None if options.plan else _NO_PLAN
    if name in catalogue.PEERS:
        return None
    if name == "onnx-int8" and options.onnx and not (options.int8 or options.weights):
        return f"{options.onnx.name} may have other weights: name its int8 file with --int8."
    extra, what = "train", "It runs in PyTorch and"
    if name in ONNX:
        file = options.int8 if name == "onnx-int8" else options.onnx
        if file:
            return None
        extra, what = "export", f"Without --{'int8' if name == 'onnx-int8' else 'onnx'}, it"
    return None if all(map(version, _NEEDS[extra])) else f"{MissingExtraError(what, extra)}."


def _model(options: argparse.Namespace, names: Sequence[str]) -> tuple[ModelConfig, dict[str, Any]]:
    """The network to measure, and words for the report on where it comes from."""
    onnx = options.onnx and _onnx_metadata(options.onnx)
    words = "exported in this run, without the gate of bsm export"
    if onnx:
        words = f"{options.onnx.name}, {onnx.provenance.source}"
    elif not set(names) & set(ONNX):
        words = "none"
    if onnx and set(names) <= set(ONNX) and not options.weights:
        return onnx.model, {"weights": onnx.provenance.source, "onnx": words}
    if options.weights:
        _, pairs = read_safetensors_header(existing_file(options.weights))
        metadata = parse_metadata(pairs, options.weights)
        model, weights = metadata.model, metadata.provenance.source
    else:
        model = load_config(options.config).model
        weights = f"random weights of {Path(options.config).name}"
    for path in (options.onnx, options.int8):
        if path and _onnx_metadata(path).model != model:
            raise EngineError(
                f"{path} is another network than {options.weights or options.config}: "
                "name its configuration with --config or its checkpoint with --weights."
            )
    return model, {"weights": weights, "onnx": words}


def _onnx_metadata(path: Path) -> Metadata:
    return parse_metadata(read_onnx_file(path).metadata, path)


def _frames(seconds: float, model: ModelConfig) -> int:
    audio = model.audio
    samples = round(seconds * audio.sample_rate)
    if samples <= audio.n_fft:
        raise EngineError(f"{seconds:g} s are no chunk: it needs more than {audio.n_fft} samples.")
    return 1 + samples // audio.hop


def _prepare(
    options: argparse.Namespace, names: Sequence[str], others: Sequence[str], folder: Path, say: Say
) -> dict[str, Job]:
    """Makes the files that are not there, and the jobs that need them."""
    weights = options.weights or folder / "model.safetensors"
    onnx = options.onnx or folder / "model.onnx"
    int8 = options.int8 or folder / "model.int8.onnx"
    files = dict.fromkeys(TORCH, weights) | {"onnx-int8": int8, "plan": options.plan}
    own = [*names, *(name for name in others if name == catalogue.SEQUENTIAL)]
    used = {files.get(name, weights if name == catalogue.SEQUENTIAL else onnx) for name in own}
    wanted = {
        name: str(path)
        for name, path in (("weights", weights), ("onnx", onnx), ("int8", int8))
        if path in used and path.parent == folder
    }
    if wanted:
        say("making the files of the network; the export goes without the gate of bsm export")
        source = str(options.weights or options.config)
        Process(Job(kind="prepare", file=source, **wanted)).close()
    return {
        name: Job(
            kind=name,
            threads=options.threads,
            seconds=options.seconds,
            file=str(weights if name == catalogue.SEQUENTIAL else files.get(name, onnx)),
            mask="" if name == catalogue.SEQUENTIAL else str(folder / f"{name}.npy"),
        )
        for name in own
    }


def _peer_jobs(
    options: argparse.Namespace, others: Sequence[str], failed: dict[str, str], say: Say
) -> dict[str, Job]:
    """Jobs of the packages of others; notes in `failed` that they cannot be installed."""
    found = {name: peer for name, peer in catalogue.PEERS.items() if name in others}
    if not found:
        return {}
    wanted = requirements([peer.requirement for peer in catalogue.PEERS.values()])
    try:
        python = make_environment(wanted, say)
    except BsmError as error:
        say(str(error))
        failed.update(dict.fromkeys(found, str(error)))
        return {}
    return {
        name: Job(
            kind=name,
            worker="peers/worker.py",
            python=str(python),
            threads=options.threads,
            seconds=options.seconds,
        )
        for name in found
    }


def _profiles(
    jobs: Mapping[str, Job], measured: Measured, failed: dict[str, str], say: Say
) -> Report:
    """ONNX Runtime's profile of each of its engines that has a row."""
    wanted = {
        f"profile-{name}": replace(job, kind=f"profile-{name}", mask="")
        for name, job in jobs.items()
        if name in ONNX and name in measured.rounds
    }
    profiled = take_turns(wanted, 0, say)
    failed |= profiled.failed
    return {name.removeprefix("profile-"): rounds[0] for name, rounds in profiled.rounds.items()}


def _growth(options: argparse.Namespace, failed: dict[str, str], say: Say) -> Report:
    """Cost over the length of a song, and over the size of a batch, of one engine."""
    file = str(options.growth_engine or "default")
    jobs = {
        "length": Job(
            kind="length", file=file, threads=options.threads, counts=tuple(options.lengths)
        ),
        "batch": Job(
            kind="batch", file=file, threads=options.threads, counts=tuple(options.batches)
        ),
    }
    grown = take_turns(jobs, options.rounds, say)
    failed |= {f"growth with {name}": why for name, why in grown.failed.items()}
    return {
        name: growth_figures(grown.about[name], rounds) for name, rounds in grown.rounds.items()
    }
