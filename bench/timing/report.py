"""From the times of all rounds to figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.common.flops import in_proj_shape
from bench.common.report import summary
from bench.timing.engines import PARTS
from bench.timing.floor import floor_s, network_work, total_s
from bench.timing.rounds import Measured
from bsmamba2.config.model import ModelConfig
from bsmamba2.evaluation.parity import LIMITS

BASES = ("onnx-native", "onnx-body")
"""Rows that the others are measured against: the first that is there."""
_RATES = {"gemm": "gflops", "gemm-int8": "gops", "memory": "gb_s"}
Rounds = Sequence[Mapping[str, Any]]
"""What one process answered round by round, the warm-up first."""


def results(
    measured: Measured, model: ModelConfig, frames: int, seconds: float, engines: Sequence[str]
) -> dict[str, Any]:
    """Rates, floors, agreement of the masks, and a row for each engine and peer.

    Args:
        measured: At least one round after the warm-up.
        model: The network.
        frames: Of a chunk.
        seconds: Of audio in a chunk.
        engines: Names of the project's own rows; the others are peers.
    """
    agreement = _agreement(measured)
    rows = {name: rounds for name, rounds in measured.rounds.items() if name not in _RATES}
    base = next((name for name in BASES if name in rows and name not in agreement["wrong"]), None)
    floors = _floors(measured.rounds, model, frames)
    figures = {
        name: measured.about[name]
        | row_figures(
            rounds,
            per_chunk=seconds / measured.about[name]["audio_s"],
            seconds=seconds,
            base=rows[base] if base and name not in agreement["wrong"] else None,
            floors=floors.get(precision(name)) if name in engines else None,
        )
        for name, rounds in rows.items()
    }
    return {
        "rounds": max((len(rounds) - 1 for rounds in rows.values()), default=0),
        "rates": _rates(measured, in_proj_shape(model, frames)),
        "floor": _floor(measured.rounds, model, frames),
        "agreement": agreement,
        "base": base,
        "engines": {name: row for name, row in figures.items() if name in engines},
        "peers": {name: row for name, row in figures.items() if name not in engines},
    }


def precision(name: str) -> str:
    """Of a row's products."""
    return "int8" if name.endswith("int8") else "float32"


def row_figures(
    rounds: Rounds,
    *,
    per_chunk: float,
    seconds: float,
    base: Rounds | None,
    floors: Sequence[float] | None,
) -> dict[str, Any]:
    """What one row took; quotients are made within each round, then summarised.

    Args:
        rounds: The row's.
        per_chunk: Chunks of `seconds` in what it computes at a time.
        seconds: Of audio in a chunk.
        base: The rounds that it is measured against, of chunks of `seconds`.
        floors: Least seconds of the network alone in the same rounds.
    """
    measured = rounds[1:]
    whole = [each["whole_s"] * per_chunk for each in measured]
    theirs = [each["whole_s"] for each in base[1:]] if base else []
    parts = PARTS[1] in measured[0]
    network = [each[PARTS[1]] * per_chunk for each in measured] if parts else []
    return {
        "ms_per_chunk": summary(1000 * each for each in whole),
        "real_time_factor": statistics.median(whole) / seconds,
        "share": {
            part.removesuffix("_s"): sum(each[part] for each in measured)
            / sum(each["whole_s"] for each in measured)
            for part in PARTS
        }
        if parts
        else None,
        "ratio_to_base": summary(a / b for a, b in zip(whole, theirs, strict=True))
        if theirs
        else None,
        "ratio_to_floor": summary(a / b for a, b in zip(network, floors, strict=True))
        if network and floors
        else None,
        "peak_memory_mib": rounds[-1]["peak_memory_mib"],
        "warm_up": rounds[0],
        "rounds": list(measured),
    }


def _agreement(measured: Measured) -> dict[str, Any]:
    limits = {name: LIMITS[precision(name)].relative_rms for name in measured.relative_rms}
    found = measured.relative_rms
    return {
        "reference": measured.reference,
        "limits": limits,
        "relative_rms": {  # None: a mask with NaN or Inf
            name: rms if math.isfinite(rms) else None for name, rms in found.items()
        },
        "wrong": [name for name, rms in found.items() if not rms <= limits[name]],
    }


def _rates(measured: Measured, shape: Sequence[int]) -> dict[str, Any]:
    rates = {}
    for name, unit in _RATES.items():
        if name in measured.rounds:
            values = summary(each[unit] for each in measured.rounds[name][1:])
            rates[name] = dict(measured.about[name]) | {unit: values}
            if name != "memory":
                rates[name]["shape"] = list(shape)
    return rates


def _floors(
    rounds: Mapping[str, Rounds], model: ModelConfig, frames: int
) -> dict[str, list[float]]:
    """Precision -> the least seconds in each round, at the round's own rates."""
    work = network_work(model, frames)
    floors: dict[str, list[float]] = {}
    for number in range(1, len(rounds.get("gemm", ()))):
        for name, rates in _precisions(rounds, lambda each, n=number: each[n]).items():
            floors.setdefault(name, []).append(total_s(floor_s(work, **rates)))
    return floors


def _floor(rounds: Mapping[str, Rounds], model: ModelConfig, frames: int) -> dict[str, Any]:
    """Precision -> its stages and their sum, at the median rates."""
    if len(rounds.get("gemm", ())) < 2:
        return {}

    def median(each: Rounds) -> dict[str, float]:
        keys = [unit for unit in _RATES.values() if unit in each[1]]
        return {key: statistics.median(r[key] for r in each[1:]) for key in keys}

    work = network_work(model, frames)
    floors = {}
    for name, rates in _precisions(rounds, median).items():
        stages = floor_s(work, **rates)
        floors[name] = {"floor_s": total_s(stages), "stages": stages}
    return floors


def _precisions(rounds: Mapping[str, Rounds], pick: Any) -> dict[str, dict[str, Any]]:
    """Precision -> rates for `floor_s`; int8 only where its rate was measured."""
    values = {unit: pick(rounds[name])[unit] for name, unit in _RATES.items() if name in rounds}
    rates = {"gflops": values["gflops"], "gb_s": values.get("gb_s")}
    found = {"float32": rates}
    if "gops" in values:
        found["int8"] = rates | {"int8_gops": values["gops"]}
    return found
