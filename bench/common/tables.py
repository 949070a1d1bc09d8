"""Tables for a terminal and for Markdown; standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence


def aligned(rows: Sequence[Sequence[str]], numbers: bool = False) -> Iterator[str]:
    """Lines of aligned columns; `numbers` aligns all but the first to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if numbers and place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def median_range(figures: Mapping[str, float] | None, form: str = "") -> str:
    """Median and range, each formatted by `form` or, if that is empty, by `sig`."""
    if not figures:
        return "-"
    median, low, high = (
        format(figures[key], form) if form else sig(figures[key])
        for key in ("median", "min", "max")
    )
    return f"{median} ({low}-{high})"


def sig(value: float) -> str:
    """Three significant digits, without an exponent."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:#.3g}" if abs(value) >= 1e-4 else f"{value:.6f}"
