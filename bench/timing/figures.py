"""Figures computed from the times of all rounds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.common.flops import in_proj_shape
from bench.common.report import summary
from bench.timing.engines import PARTS
from bench.timing.floor import floors, network_work
from bench.timing.turns import Measured
from bsmamba2.config.model import ModelConfig
from bsmamba2.evaluation.parity import LIMITS

BASES = ("onnx-native", "onnx-body")
"""Rows that the others may be compared with; the first one measured is taken."""
RATES = {"gemm": "gflops", "gemm-int8": "gops", "memory": "gb_s"}
"""Peak rate of the machine -> the key of its figure."""
Rounds = Sequence[Mapping[str, Any]]
"""Replies of one process, round by round, the warm-up first."""


def results(
    measured: Measured, model: ModelConfig, frames: int, seconds: float, engines: Sequence[str]
) -> dict[str, Any]:
    """Rates, floors, agreement of the masks, and a row for each engine and peer.

    Args:
        measured: The times, with at least one round after the warm-up.
        model: The network.
        frames: Frames of a chunk.
        seconds: Seconds of audio in a chunk.
        engines: Names of the project's own rows; the others are peers.
    """
    agreement = _agreement(measured)
    rates = _rates(measured, in_proj_shape(model, frames))
    rows = {name: rounds for name, rounds in measured.rounds.items() if name not in RATES}
    base = next((name for name in BASES if name in rows and name not in agreement["wrong"]), None)
    work, floor = network_work(model, frames), {}
    in_rounds: list[dict[str, Any]] = []
    if rates.keys() >= {"gemm", "memory"}:
        units = {name: RATES[name] for name in rates}
        floor = floors(work, {unit: rates[name][unit]["median"] for name, unit in units.items()})
        for turn in zip(*(measured.rounds[name][1:] for name in units), strict=False):
            values = zip(units.values(), turn, strict=True)
            in_rounds.append(floors(work, {unit: answer[unit] for unit, answer in values}))
    figures = {
        name: measured.about[name]
        | row_figures(
            rounds,
            per_chunk=seconds / measured.about[name]["audio_s"],
            seconds=seconds,
            base=rows[base] if base and name not in agreement["wrong"] else None,
            floors_s=[
                each[precision(name)]["floor_s"] for each in in_rounds if precision(name) in each
            ]
            if name in engines
            else [],
        )
        for name, rounds in rows.items()
    }
    return {
        "rounds": max((len(rounds) - 1 for rounds in rows.values()), default=0),
        "rates": rates,
        "floor": floor,
        "agreement": agreement,
        "base": base,
        "engines": {name: row for name, row in figures.items() if name in engines},
        "peers": {name: row for name, row in figures.items() if name not in engines},
    }


def precision(name: str) -> str:
    """The precision of a row's matrix products."""
    return "int8" if name.endswith("int8") else "float32"


def row_figures(
    rounds: Rounds,
    *,
    per_chunk: float,
    seconds: float,
    base: Rounds | None,
    floors_s: Sequence[float],
) -> dict[str, Any]:
    """Figures of one row; ratios are taken within each round, then summarised.

    Args:
        rounds: The row's replies.
        per_chunk: How many of its runs make up a chunk of `seconds`.
        seconds: Seconds of audio in a chunk.
        base: The base's replies, for chunks of `seconds`.
        floors_s: The network's floor in each of these rounds, if known.
    """
    measured = rounds[1:]
    whole = [each["whole_s"] * per_chunk for each in measured]
    share = ratio_to_base = ratio_to_floor = None
    if base:
        pairs = zip(whole, base[1:], strict=True)
        ratio_to_base = summary(own / theirs["whole_s"] for own, theirs in pairs)
    if "engine_s" in measured[0]:
        total = sum(each["whole_s"] for each in measured)
        share = {p.removesuffix("_s"): sum(each[p] for each in measured) / total for p in PARTS}
        if floors_s:
            pairs = zip(measured, floors_s, strict=True)
            ratio_to_floor = summary(own["engine_s"] * per_chunk / least for own, least in pairs)
    return {
        "ms_per_chunk": summary(1000 * each for each in whole),
        "real_time_factor": statistics.median(whole) / seconds,
        "share": share,
        "ratio_to_base": ratio_to_base,
        "ratio_to_floor": ratio_to_floor,
        "peak_memory_mib": rounds[-1]["peak_memory_mib"],
        "warm_up": rounds[0],
        "rounds": list(measured),
    }


def _agreement(measured: Measured) -> dict[str, Any]:
    found = measured.relative_rms
    limits = {name: LIMITS[precision(name)].relative_rms for name in found}
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
    for name, unit in RATES.items():
        if name in measured.rounds:
            values = summary(each[unit] for each in measured.rounds[name][1:])
            rates[name] = dict(measured.about[name]) | {unit: values}
            if name != "memory":
                rates[name]["shape"] = list(shape)
    return rates
