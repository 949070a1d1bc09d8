"""The report as text: for a terminal, and as a table between two markers of a Markdown file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bench.common.tables import aligned, markdown, sig

BEGIN, END = "<!-- latency: begin -->", "<!-- latency: end -->"
"""Markers around the table in a Markdown file."""
LABELS = {
    "pytorch": "PyTorch, as trained",
    "pytorch-folded": "PyTorch, folded",
    "onnx-body": "ONNX Runtime, function body",
    "onnx-native": "ONNX Runtime, native scan",
    "onnx-int8": "ONNX Runtime, int8",
    "plan": "TensorRT plan",
    "bs-roformer": "BS-RoFormer",
    "bs-roformer-4-streams": "BS-RoFormer, package's default",
    "htdemucs": "HTDemucs",
    "sequential-scan": "BSMamba2, sequential scan",
}
_RATES = {
    "gemm": ("gflops", "GFLOP/s (float32 products)"),
    "gemm-int8": ("gops", "GOP/s (int8 products)"),
    "memory": ("gb_s", "GB/s (memory)"),
}
_GROWTH = {"length": "songs", "batch": "batches"}
_MOST_OPERATORS = 8
_README_OPTION = re.compile(r" --readme[ =]('[^']*'|\S+)")
Report = Mapping[str, Any]


def rows_of(report: Report) -> dict[str, Report]:
    """Engines, then peers."""
    rows: dict[str, Report] = report["engines"] | report["peers"]
    return rows


def readme_table(report: Report) -> str:
    """The Markdown between BEGIN and END: a sentence, the table, a list of notes."""
    machine = report["machine"]
    isa = "AVX-512" if "avx512f" in machine["isa"] else "AVX2" if "avx2" in machine["isa"] else ""
    rounds = "one round" if report["rounds"] == 1 else f"medians of {report['rounds']} rounds"
    # Which file the table went to is no part of the measurement.
    command = _README_OPTION.sub("", report["command"])
    head = (
        f"Measured on {machine['cores']} cores ({machine['cpu']}{f', {isa}' if isa else ''}) with "
        f"{report['model']['weights']}, {rounds}, by `{command}`:"
    )
    rows = ((LABELS.get(name, name), *_cells(row)) for name, row in rows_of(report).items())
    notes = (f"- {note}" for note in _notes(report))
    return "\n".join([head, "", *markdown(_head(report), rows), "", *notes])


def lines(report: Report) -> Iterator[str]:
    """The whole report for a terminal."""
    load = (report["machine"]["load_average"][when] for when in ("start", "end"))
    yield report["command"]
    yield f"{report['machine']['cpu']}, {report['machine']['cores']} cores"
    yield "load average {} at the start, {} at the end".format(*load)
    yield ", ".join(f"{name} {value}" for name, value in report["versions"].items() if value)
    yield "{weights} ({parameters:,} parameters); ONNX file: {onnx}".format(**report["model"])
    yield (
        "chunk of {seconds:g} s: {frames} frames, {tokens:,} tokens, ".format(**report["chunk"])
        + f"{sum(report['flops'].values()) / 1e12:.4g} TFLOP"
    )
    yield ""
    table = [(*_head(report), "fastest-slowest", "mask differs")]
    for name, row in rows_of(report).items():
        ms = row["ms_per_chunk"]
        spread = f"{ms['min']:,.0f}-{ms['max']:,.0f}"
        table.append((name, *_cells(row), spread, _distance(name, report["agreement"])))
    yield from aligned(table, numbers=True)
    yield ""
    yield from _notes(report)
    yield from _profiles(report)
    yield from _problems(report)


def _head(report: Report) -> tuple[str, ...]:
    base = f"relative to {LABELS.get(report['base'], report['base'])}"
    seconds = f"ms per {report['chunk']['seconds']:g} s"
    floor = "relative to the floor"
    return ("", seconds, "times real time", base, floor, "STFT + ISTFT", "peak memory")


def _cells(row: Report) -> tuple[str, ...]:
    share = row["share"]
    return (
        f"{row['ms_per_chunk']['median']:,.0f}",
        f"{1 / row['real_time_factor']:.2g}",
        sig(row["ratio_to_base"]["median"]) if row["ratio_to_base"] else "",
        sig(row["ratio_to_floor"]["median"]) if row["ratio_to_floor"] else "",
        f"{share['stft'] + share['istft']:.2%}" if share else "",
        f"{row['peak_memory_mib'] / 1024:.1f} GiB",
    )


def _distance(name: str, agreement: Report) -> str:
    if name == agreement["reference"]:
        return "reference"
    rms = agreement["relative_rms"].get(name, "")
    return "not finite" if rms is None else f"{rms:.1e}" if rms else ""


def _notes(report: Report) -> Iterator[str]:
    """Sentences below the table."""
    rates = [
        f"{rate[_RATES[name][0]]['median']:.0f} {_RATES[name][1]}"
        for name, rate in report["rates"].items()
    ]
    floors = " and ".join(
        f"{sig(floor['floor_s'])} s in {precision}" for precision, floor in report["floor"].items()
    )
    if floors:
        yield (
            "The floor is the least time for the network's arithmetic and memory traffic: "
            f"{floors}, at this machine's measured {', '.join(rates[:-1])} and {rates[-1]}."
        )
    yield from (text for name in report["growth"] if (text := growth_text(report, name)))
    for name, row in report["peers"].items():
        yield f"{LABELS.get(name, name)}: {_peer_text(row)}."


def growth_text(report: Report, name: str) -> str:
    """A sentence about the line through the points; "" if there is none."""
    growth = report["growth"][name]
    points, line = growth["points"], growth["fit"]
    if not line:
        return ""
    return (
        f"For {_GROWTH[name]} of {points[0]['chunks']} to {points[-1]['chunks']} chunks "
        f"({growth['engine']['file']}), time grows by {sig(line['chunk_s'])} s per chunk, within "
        f"{line['worst_residual']:.1%} of a straight line, and peak memory from "
        f"{points[0]['peak_memory_mib']:.0f} to {points[-1]['peak_memory_mib']:.0f} MiB."
    )


def _peer_text(row: Report) -> str:
    package = f"{row['package']} {row['version']}" if "package" in row else ""
    torch = f"PyTorch {row.get('torch', row['version'])}"
    size = f"{row['parameters'] / 1e6:.1f} M parameters" if row["parameters"] else ""
    stems = row["stems"]
    what = f"{row['audio_s']:g} s of {row['sample_rate'] / 1000:g} kHz stereo in, "
    what += f"{stems[0] if len(stems) == 1 else f'{len(stems)} stems'} out"
    parts = (package, torch, row["configuration"], size, what, row.get("extrapolation", ""))
    return "; ".join(part for part in parts if part)


def _profiles(report: Report) -> Iterator[str]:
    for name, profile in report["profile"].items():
        parts = (f"{part} {each['share']:.1%}" for part, each in (profile["parts"] or {}).items())
        slowest = profile["operators"][:_MOST_OPERATORS]
        operators = (f"{row['operator']} {row['share']:.1%}" for row in slowest)
        yield f"{name}, by ONNX Runtime's profile: {', '.join(parts)}; {', '.join(operators)}"


def _problems(report: Report) -> Iterator[str]:
    if not report["complete"]:
        yield "The run was interrupted: these are the figures up to then."
    for name in report["agreement"]["wrong"]:
        yield (
            f"{name} computes a different mask from {report['agreement']['reference']}: its times "
            "do not count. Does the ONNX file have other weights? Name its checkpoint with "
            "--weights."
        )
    for name, reason in (report["skipped"] | report["failed"]).items():
        yield f"{name}: not measured. {reason}"
