"""The report of `analyse.py` as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bench.common.tables import markdown

BEGIN = "<!-- begin: python bench/kernels/analyse.py --write-readme -->"
END = "<!-- end -->"
"""Around the tables."""
_STAGES = 9  # of a kernel
Row = Mapping[str, Any]


def tables(report: Row) -> str:
    """All tables."""
    return "\n".join(_lines(report))


def _lines(report: Row) -> Iterator[str]:
    sizes = report["sizes"]
    yield (
        f"nvcc {report['nvcc']}, {report['date']}: {sizes['n_heads']} heads of "
        f"{sizes['headdim']}, d_state {sizes['d_state']}; "
        + ", ".join(f"{name} N={w['N']} L={w['L']}" for name, w in report["ways"].items())
        + "."
    )
    yield ""
    yield from _usage(report["kernels"])
    for row in report["kernels"]:
        if "bounds" in row and row["dtype"] == "float16":
            yield ""
            yield from _mix(row)
    bounded = [row for row in report["kernels"] if "bounds" in row]
    if bounded:
        yield ""
        yield from _bounds(bounded, report)
    unknown = sorted({loop for row in report["kernels"] for loop in row["unknown_loops"]})
    for loop in unknown:
        yield ""
        yield f"Counted as one turn, as nothing is known of it: `{loop}`"


def _usage(rows: Iterable[Row]) -> Iterator[str]:
    table = []
    for row in rows:
        plan = row["plan"]
        norm = f"cluster of {plan['cluster']}" if plan["cluster"] > 1 else "one block"
        table.append(
            (
                row["dtype"],
                f"sm_{row['architecture']}",
                f"`{row['kernel']}`",
                str(row["registers"]),
                str(row["spill_bytes"]),
                f"{plan['launch_bytes'] / 1024:.2f}",
                str(plan["threads"]),
                str(row["blocks_per_multiprocessor"]),
                f"{row['occupancy']:.0%}",
                row["occupancy_limit"],
                "second kernel" if plan["two_steps"] else norm,
            )
        )
    head = ("type", "chip", "kernel", "registers", "spilled B", "shared KiB", "threads")
    yield from markdown((*head, "blocks / SM", "occupancy", "limited by", "norm"), table)


def _mix(row: Row) -> Iterator[str]:
    per = row["chunks"]
    unit = "chunk" if per > 1 else "block"
    total = sum(kind["run"] for kind in row["mix"].values())
    yield (
        f"`{row['kernel']}`, {row['dtype']}, sm_{row['architecture']}: instructions that a warp "
        f"issues for a {unit}, on average {total / per:.0f} "
        f"({sum(kind['static'] for kind in row['mix'].values())} in the code)."
    )
    yield ""
    kinds = sorted(row["mix"].items(), key=lambda item: -item[1]["run"])
    shown = [(name, kind) for name, kind in kinds if kind["run"] / per >= 0.5]
    yield from markdown(
        ("", *(name for name, _ in shown)),
        [
            ("run", *(f"{kind['run'] / per:.0f}" for _, kind in shown)),
            ("in the code", *(str(kind["static"]) for _, kind in shown)),
        ],
    )
    yield ""
    stages = row["stages"][:_STAGES]
    yield from markdown(
        ("statement of the kernel", "run", "share"),
        [
            (f"`{each['statement']}`", f"{each['run'] / per:.0f}", f"{each['run'] / total:.0%}")
            for each in stages
        ],
    )


def _bounds(rows: Sequence[Row], report: Row) -> Iterator[str]:
    clocks = report["rates"]["clocks_ghz"]
    yield (
        f"Least ms of a scan on an {report['rates']['gpu']}, at {clocks[0]:g}-{clocks[1]:g} GHz, "
        "if only one thing took time:"
    )
    yield ""
    names = list(rows[0]["bounds"]["ms"])
    table = []
    for row in rows:
        figures = row["bounds"]
        head = (row["dtype"], row["way"], str(figures["blocks"]), f"{figures['waves']:.1f}")
        cells = (_range(figures["ms"][name], name == figures["bound"]) for name in names)
        table.append((*head, f"{figures['bytes'] / 1e9:.3f}", *cells))
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        own = [row["bounds"]["ms"] for row in rows if row["dtype"] == dtype]
        pairs = report["blocks"] // len(own)
        sums = {n: [pairs * sum(ms[n][i] for ms in own) for i in (0, 1)] for n in names}
        largest = max(sums, key=lambda n: sums[n][0])
        cells = (_range(sums[name], name == largest) for name in names)
        table.append((dtype, f"all {report['blocks']} blocks", "", "", "", *cells))
    yield from markdown(("type", "way", "blocks", "waves", "GB", *names), table)
    yield ""
    yield f"Target for float16: {report['target_ms']} ms for all {report['blocks']}. Assumed:"
    yield ""
    yield from (f"- {source}" for source in report["rates"]["sources"])


def _range(values: Sequence[float], bold: bool) -> str:
    low, high = (f"{value:.3f}" if value < 1 else f"{value:.2f}" for value in sorted(values))
    text = low if low == high else f"{low}-{high}"
    return f"**{text}**" if bold else text
