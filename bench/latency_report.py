"""From the times of all rounds to figures and a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from latency_worker import PARTS

BASE = "onnxruntime"
"""The engine that the others are measured against."""
Rounds = Sequence[dict[str, float]]
"""What one process answered round by round, the warm-up first."""


def summary(values: Iterable[float]) -> dict[str, float]:
    """Median and range."""
    values = list(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def engine_figures(
    rounds: Rounds, gemm: Rounds, base: Rounds | None, *, seconds: float, flops: float
) -> dict[str, Any]:
    """What one engine took; quotients are made within each round, then summarised.

    Args:
        rounds: The engine's.
        gemm: Rate of the matrix product in the same rounds.
        base: BASE's rounds; None where nothing may be compared with them.
        seconds: Of audio in a chunk.
        flops: Of the network in a chunk.
    """
    measured = rounds[1:]
    whole = [each["whole_s"] for each in measured]
    floors = [flops / (each["gflops"] * 1e9) for each in gemm[1:]]
    theirs = [each["whole_s"] for each in base[1:]] if base else []
    return {
        "whole_s": summary(whole),
        "real_time_factor": statistics.median(whole) / seconds,
        "share": {
            part.removesuffix("_s"): sum(each[part] for each in measured) / sum(whole)
            for part in PARTS
        },
        "ratio_to_onnxruntime": summary(a / b for a, b in zip(whole, theirs, strict=True))
        if theirs
        else None,
        "ratio_to_gemm_floor": summary(
            each["engine_s"] / floor for each, floor in zip(measured, floors, strict=True)
        ),
        "peak_memory_mib": rounds[-1]["peak_memory_mib"],
        "warm_up": rounds[0],
        "rounds": list(measured),
    }


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report for people."""
    yield from _head(report)
    yield ""
    yield from _table(report)
    yield ""
    yield from _notes(report)


def _head(report: Mapping[str, Any]) -> Iterator[str]:
    machine, versions, chunk = report["machine"], report["versions"], report["chunk"]
    load = machine["load_average"]
    yield report["command"]
    isa = " ".join(machine["isa"]) or "no vector instructions known"
    yield f"{machine['cpu']}, {machine['cores']} cores, {isa}, {machine['memory_gib']} GiB"
    yield f"load average {_load(load['start'])} at the start, {_load(load['end'])} at the end"
    yield ", ".join(f"{name} {value}" for name, value in versions.items() if value)
    model, gemm = report["model"], report["gemm"]
    yield (
        f"{model['weights']} ({model['parameters']:,} parameters); ONNX file: {model['onnx']}; "
        f"threads: {report['threads'] or 'as each engine chooses'}"
    )
    yield (
        f"chunk of {chunk['seconds']:g} s: {chunk['frames']} frames, {chunk['tokens']:,} tokens, "
        f"{report['flops']['total'] / 1e12:.4g} TFLOP"
    )
    yield (
        f"float32 GEMM {' x '.join(map(str, gemm['shape']))} ({gemm['library']}): "
        f"{_range(gemm['gflops'], '.0f')} GFLOP/s, so the floor is {_sig(gemm['floor_s'])} s"
    )


def _load(values: Sequence[float] | None) -> str:
    return " ".join(f"{value:.2f}" for value in values) if values else "unknown"


_COLUMNS = (
    "engine",
    "s / chunk (min-max)",
    "RTF",
    "STFT",
    "ISTFT",
    "/ ONNX Runtime",
    "/ GEMM floor",
    "peak MiB",
    "mask differs",
    "warm-up s",
)


def _table(report: Mapping[str, Any]) -> Iterator[str]:
    rows = [_COLUMNS]
    for name, figures in report["engines"].items():
        ratio = figures["ratio_to_onnxruntime"]
        rows.append(
            (
                name,
                _range(figures["whole_s"]),
                _sig(figures["real_time_factor"]),
                f"{figures['share']['stft']:.2%}",
                f"{figures['share']['istft']:.2%}",
                _range(ratio) if ratio else "none",
                _range(figures["ratio_to_gemm_floor"]),
                f"{figures['peak_memory_mib']:.0f}",
                _distance(name, report["agreement"]),
                _sig(figures["warm_up"]["whole_s"]),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *rest = (
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join([first, *rest]).rstrip()


def _distance(name: str, agreement: Mapping[str, Any]) -> str:
    if name not in agreement["relative_rms"]:
        return "reference" if agreement["reference"] else "not compared"
    rms = agreement["relative_rms"][name]
    return "not finite" if rms is None else f"{rms:.1e}"


def _notes(report: Mapping[str, Any]) -> Iterator[str]:
    agreement = report["agreement"]
    yield (
        f"{report['rounds']} rounds after a warm-up, engines in turn, one computing at a time; "
        "quotients are medians of the rounds' own. RTF: computing time over audio time. "
        "GEMM floor: the network alone. Mask differs: relative RMS to "
        f"{agreement['reference'] or 'no other engine'}, worst round, "
        f"limit {agreement['limit']:.0e}."
    )
    for name in agreement["wrong"]:
        yield (
            f"{name} computes another mask than {agreement['reference']}: its times do not count. "
            "Is the ONNX file of other weights? Name its checkpoint with --weights."
        )
    for name, reason in (report["skipped"] | report["failed"]).items():
        yield f"{name}: no row. {reason}"


def _range(figures: Mapping[str, float], form: str = "") -> str:
    median, low, high = (
        format(figures[key], form) if form else _sig(figures[key])
        for key in ("median", "min", "max")
    )
    return f"{median} ({low}-{high})"


def _sig(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:#.3g}" if value >= 1e-4 else f"{value:.6f}"
