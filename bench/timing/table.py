"""The report for people: a table in a terminal, and the one in the README."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.common.tables import aligned, markdown, median_range, sig

BEGIN, END = "<!-- latency: begin -->", "<!-- latency: end -->"
"""Around what the README has from here."""
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
Row = Mapping[str, Any]


def rows_of(report: Mapping[str, Any]) -> dict[str, Row]:
    """Engines, then peers."""
    rows: dict[str, Row] = report["engines"] | report["peers"]
    return rows


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The whole report for a terminal."""
    yield from _head(report)
    for part in (_rows, _floor, _growth, _profile, _notes):
        block = list(part(report))
        if block:
            yield ""
            yield from block


def _head(report: Mapping[str, Any]) -> Iterator[str]:
    machine, versions, chunk = report["machine"], report["versions"], report["chunk"]
    load = machine["load_average"]
    yield report["command"]
    isa = " ".join(machine["isa"]) or "no vector instructions known"
    yield f"{machine['cpu']}, {machine['cores']} cores, {isa}, {machine['memory_gib']} GiB"
    yield f"load average {_load(load['start'])} at the start, {_load(load['end'])} at the end"
    yield ", ".join(f"{name} {value}" for name, value in versions.items() if value)
    model = report["model"]
    yield (
        f"{model['weights']} ({model['parameters']:,} parameters); ONNX file: {model['onnx']}; "
        f"threads: {report['threads'] or 'as each engine chooses'}"
    )
    yield (
        f"chunk of {chunk['seconds']:g} s: {chunk['frames']} frames, {chunk['tokens']:,} tokens, "
        f"{sum(report['flops'].values()) / 1e12:.4g} TFLOP"
    )
    for name, rate in report["rates"].items():
        unit, text = rate_text(name, rate)
        shape = " x ".join(map(str, rate.get("shape", ())))
        yield f"{name}{' ' + shape if shape else ''} ({rate['library']}): {text} {unit}"


def rate_text(name: str, rate: Mapping[str, Any], spread: bool = True) -> tuple[str, str]:
    """(unit, figures) of a rate."""
    key, unit = {
        "gemm": ("gflops", "GFLOP/s"),
        "gemm-int8": ("gops", "GOP/s"),
        "memory": ("gb_s", "GB/s"),
    }[name]
    return unit, median_range(rate[key], ".0f") if spread else f"{rate[key]['median']:.0f}"


def _load(values: Sequence[float] | None) -> str:
    return " ".join(f"{value:.2f}" for value in values) if values else "unknown"


def _rows(report: Mapping[str, Any]) -> Iterator[str]:
    head = ("row", f"ms / {report['chunk']['seconds']:g} s (min-max)", "RTF")
    head += (f"/ {report['base'] or 'base'}", "/ floor", "STFT", "network", "mask", "ISTFT")
    table = [(*head, "peak MiB", "mask differs", "warm-up s")]
    for name, row in rows_of(report).items():
        share = row["share"] or {}
        table.append(
            (
                name,
                median_range(row["ms_per_chunk"]),
                sig(row["real_time_factor"]),
                median_range(row["ratio_to_base"]),
                median_range(row["ratio_to_floor"]),
                *(f"{value:.2%}" for value in share.values() or []),
                *("-" for _ in range(4 - len(share))),
                f"{row['peak_memory_mib']:.0f}",
                _distance(name, report),
                sig(row["warm_up"]["whole_s"]),
            )
        )
    yield from aligned(table, numbers=True)


def _distance(name: str, report: Mapping[str, Any]) -> str:
    agreement = report["agreement"]
    if name == agreement["reference"]:
        return "reference"
    if name not in agreement["relative_rms"]:
        return "-"
    rms = agreement["relative_rms"][name]
    return "not finite" if rms is None else f"{rms:.1e}"


def _floor(report: Mapping[str, Any]) -> Iterator[str]:
    """Stages: what they need of the machine."""
    floors = report["floor"]
    if not floors:
        return
    head = ["stage", "GFLOP", "GB moved"]
    for precision in floors:
        head += [f"{precision} s", "bound by"]
    table = [head]
    for name, stage in floors["float32"]["stages"].items():
        cells = [name, f"{stage['flops'] / 1e9:.4g}", f"{stage['bytes'] / 1e9:.3g}"]
        for floor in floors.values():
            own = floor["stages"][name]
            memory = own["memory_s"] > own["compute_s"]
            cells += [sig(own["floor_s"]), "memory" if memory else "arithmetic"]
        table.append(cells)
    total = ["sum", "", ""]
    for floor in floors.values():
        total += [sig(floor["floor_s"]), ""]
    yield from aligned([*table, total], numbers=True)


def _growth(report: Mapping[str, Any]) -> Iterator[str]:
    for name, growth in report["growth"].items():
        engine = growth["engine"]
        yield f"growth with {name}, {engine['file']}, chunks of {engine['chunk_s']} s:"
        table = [("chunks", "audio s", "s (min-max)", "s / chunk", "peak MiB")]
        for point in growth["points"]:
            seconds = {"median": point["seconds"], "min": point["min"], "max": point["max"]}
            table.append(
                (
                    str(point["chunks"]),
                    str(point["audio_s"]),
                    median_range(seconds),
                    sig(point["seconds"] / point["chunks"]),
                    f"{point['peak_memory_mib']:.0f}",
                )
            )
        yield from (f"  {line}" for line in aligned(table, numbers=True))
        yield f"  {fit_text(growth)}"


def fit_text(growth: Mapping[str, Any]) -> str:
    """What the line through the points says."""
    line = growth["fit"]
    if not line:
        return "too few points for a line"
    sign = "+" if line["chunk_s"] >= 0 else "-"
    return (
        f"{sig(line['start_s'])} {sign} {sig(abs(line['chunk_s']))} s x chunks, "
        f"points within {line['worst_residual']:.1%} of the line, R2 {line['r2']:.4f}, "
        f"exponent {line['exponent']:.3f} (1 is linear)"
    )


def _profile(report: Mapping[str, Any]) -> Iterator[str]:
    for name, profile in report["profile"].items():
        operators = profile["operators"]
        yield f"{name}, ONNX Runtime's own profile of one chunk:"
        if profile["parts"]:
            yield "  " + ", ".join(
                f"{part} {each['ms']:.0f} ms ({each['share']:.1%})"
                for part, each in profile["parts"].items()
            )
        table = [("operator", "ms", "share", "nodes")]
        for row in operators[:_MOST_OPERATORS]:
            table.append(
                (row["operator"], f"{row['ms']:.1f}", f"{row['share']:.1%}", str(row["nodes"]))
            )
        yield from (f"  {line}" for line in aligned(table, numbers=True))
        if len(operators) > _MOST_OPERATORS:
            yield f"  and {len(operators) - _MOST_OPERATORS} more in the JSON"


_MOST_OPERATORS = 15


def _notes(report: Mapping[str, Any]) -> Iterator[str]:
    agreement = report["agreement"]
    yield (
        f"rounds after a warm-up: {report['rounds']}; rows in turn, one computing at a time; "
        "quotients are medians of the rounds' own. RTF: computing time over audio time. "
        "Floor: the network alone, each stage at this machine's measured product rate or "
        "bandwidth. Mask differs: relative RMS to "
        f"{agreement['reference'] or 'no other engine'}, worst round."
    )
    if not report["complete"]:
        yield "The run did not come to its end: this is what it had measured."
    for name in agreement["wrong"]:
        yield (
            f"{name} computes another mask than {agreement['reference']}: its times do not count. "
            "Is the ONNX file of other weights? Name its checkpoint with --weights."
        )
    for name, row in rows_of(report).items():
        text = about_text(name, row)
        if text:
            yield f"{name}: {text}"
    for name, reason in (report["skipped"] | report["failed"]).items():
        yield f"{name}: no row. {reason}"


def about_text(name: str, row: Row) -> str:
    """What a row is, in words: a peer's package and configuration, an engine's scan."""
    if "configuration" not in row:
        return f"scan: {row['scan']}" if "scan" in row else ""
    package = f"{row['package']} {row['version']}" if "package" in row else ""
    torch = f"PyTorch {row.get('torch', row['version'])}"
    size = f"{row['parameters'] / 1e6:.1f} M parameters" if row["parameters"] else ""
    stems = row["stems"]
    what = f"{row['audio_s']:g} s of stereo at {row['sample_rate'] / 1000:g} kHz to "
    what += stems[0] if len(stems) == 1 else f"{len(stems)} stems at once"
    parts = (package, torch, row["configuration"], size, what, row.get("extrapolation", ""))
    return "; ".join(part for part in parts if part)


def readme_table(report: Mapping[str, Any]) -> str:
    """What stands between BEGIN and END."""
    chunk, base = report["chunk"], report["base"]
    machine = report["machine"]
    isa = "AVX-512" if "avx512f" in machine["isa"] else "AVX2" if "avx2" in machine["isa"] else ""
    rounds = "one round" if report["rounds"] == 1 else f"medians of {report['rounds']} rounds"
    text = [
        f"{machine['cpu']}, {machine['cores']} cores{f' with {isa}' if isa else ''}; "
        f"{report['model']['weights']}; {rounds}; `{report['command']}`:",
        "",
    ]
    head = ("", f"ms per {chunk['seconds']:g} s", "times real time", f"to {LABELS.get(base, base)}")
    head += ("to the floor", "STFT + ISTFT", "peak memory")
    text += markdown(head, (_readme_row(name, row) for name, row in rows_of(report).items()))
    return "\n".join([*text, "", *_readme_notes(report)])


def _readme_row(name: str, row: Row) -> tuple[str, ...]:
    share = row["share"]
    return (
        LABELS.get(name, name),
        f"{row['ms_per_chunk']['median']:,.0f}",
        f"{1 / row['real_time_factor']:.2g}",
        sig(row["ratio_to_base"]["median"]) if row["ratio_to_base"] else "",
        sig(row["ratio_to_floor"]["median"]) if row["ratio_to_floor"] else "",
        f"{share['stft'] + share['istft']:.2%}" if share else "",
        f"{row['peak_memory_mib'] / 1024:.1f} GiB",
    )


def _readme_notes(report: Mapping[str, Any]) -> Iterator[str]:
    """Sentences below the table, a paragraph each."""
    rates = (f"{rate_text(n, r, spread=False)[1]} {rate_text(n, r)[0]} ({_RATE_WORDS[n]})"
             for n, r in report["rates"].items())  # fmt: skip
    floors = " and ".join(
        f"{sig(floor['floor_s'])} s in {precision}" for precision, floor in report["floor"].items()
    )
    if floors:
        yield f"The floor is {floors}, at this machine's own {', '.join(rates)}."
    for name, growth in report["growth"].items():
        points, line = growth["points"], growth["fit"]
        if line:
            yield (
                f"With the {_GROWTH_WORDS[name]} ({points[0]['chunks']} to {points[-1]['chunks']} "
                f"chunks, {growth['engine']['file']}) time grows by {sig(line['chunk_s'])} s a "
                f"chunk, within {line['worst_residual']:.1%} of a straight line, and peak memory "
                f"from {points[0]['peak_memory_mib']:.0f} to {points[-1]['peak_memory_mib']:.0f} "
                "MiB."
            )
    for name, row in report["peers"].items():
        yield f"{LABELS.get(name, name)}: {about_text(name, row)}."


_RATE_WORDS = {"gemm": "float32 products", "gemm-int8": "int8 products", "memory": "memory"}
_GROWTH_WORDS = {"length": "song's length", "batch": "batch"}
