"""The report of `analyse.py` as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bench.common.tables import markdown

BEGIN = "<!-- begin: python bench/kernels/analyse.py --write-readme -->"
END = "<!-- end -->"
"""Markers around the tables."""
_STAGES = 9  # statements shown of a kernel
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
    known = [row for row in report["kernels"] if "least_ms" in row]
    for row in known:
        if row["dtype"] == "float16":
            yield ""
            yield from _mix(row)
    yield ""
    yield from _bounds(known, report)
    for loop in sorted({loop for row in known for loop in row["unknown_loops"]}):
        yield ""
        yield f"Loop of unknown trip count, counted as one iteration: `{loop}`"


def _usage(rows: Iterable[Row]) -> Iterator[str]:
    table = []
    for row in rows:
        launch = row["launch"]
        norm = f"cluster of {launch['cluster']}" if launch["cluster"] > 1 else "one block"
        table.append(
            (
                row["dtype"],
                f"sm_{row['architecture']}",
                f"`{row['kernel']}`",
                str(row["registers"]),
                str(row["spill_bytes"]),
                f"{launch['launch_bytes'] / 1024:.2f}",
                str(launch["threads"]),
                str(row["blocks_per_multiprocessor"]),
                f"{row['occupancy']:.0%}",
                row["occupancy_limit"],
                "second kernel" if launch["two_steps"] else norm,
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
        f"issues per {unit}, on average {total / per:.0f} "
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
        f"Lower bounds on the ms of a scan on an {report['rates']['gpu']} at {clocks[0]:g}-"
        f"{clocks[1]:g} GHz, each as if only that resource took time:"
    )
    yield ""
    names = list(rows[0]["least_ms"])
    table = []
    for row in rows:
        head = (row["dtype"], row["way"], str(row["launch"]["blocks"]), f"{row['waves']:.1f}")
        table.append((*head, f"{row['bytes'] / 1e9:.3f}", *_ranges(row["least_ms"])))
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        own = [row["least_ms"] for row in rows if row["dtype"] == dtype]
        scans = report["scans"] // len(own)
        sums = {n: [scans * sum(ms[n][i] for ms in own) for i in (0, 1)] for n in names}
        table.append((dtype, f"all {report['scans']} scans", "", "", "", *_ranges(sums)))
    yield from markdown(("type", "way", "blocks", "waves", "GB", *names), table)
    yield ""
    yield "Assumed:"
    yield ""
    yield from (f"- {source}" for source in report["rates"]["sources"])


def _ranges(ms: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """A cell for each resource, the largest in bold."""
    largest = max(values[0] for values in ms.values())
    for values in ms.values():
        low, high = (f"{value:.3f}" if value < 1 else f"{value:.2f}" for value in sorted(values))
        text = low if low == high else f"{low}-{high}"
        yield f"**{text}**" if values[0] == largest else text
