"""Plots as SVG elements, coloured by one style sheet.

The style sheet has a light and a dark theme, so colours are given as classes: `m0`, `m1`, ... for
models, `own` for the unprocessed mixture. Browsers show the title of a mark as its tooltip.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bsmamba2.runtime.audio.pictures import HIGHEST_HZ, LOWEST_HZ

WIDTH = 860
STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --text: #1c2026;
  --faint: #667080; --line: #dfe3e9; --own: #8a93a1; --bad: #b3261e;
  --m0: #2463c9; --m1: #c4570a; --m2: #14805a; --m3: #7b4bd6; --m4: #b8327f; --m5: #0b7c93; }
@media (prefers-color-scheme: dark) { :root { --page: #12151a; --card: #1b1f26; --text: #e6e9ee;
  --faint: #98a2b3; --line: #323842; --own: #8d97a6; --bad: #ff8a80;
  --m0: #6ea8ff; --m1: #ffa25a; --m2: #4fc796; --m3: #b497ff; --m4: #ff8ac4; --m5: #4cc9e0; } }
svg { display: block; width: 100%; min-width: 600px; height: auto; margin-top: 6px; }
svg text { font-size: 12px; fill: var(--text); } svg .title { fill: var(--faint); }
svg .mid { text-anchor: middle; } svg .end { text-anchor: end; } svg .faint { fill: var(--faint);
  font-size: 11px; }
svg .grid { stroke: var(--line); } svg .span { stroke: var(--line); stroke-width: 3; }
svg circle { fill: var(--m); stroke: var(--card); stroke-width: 1.5; }
svg circle.own { fill: var(--card); stroke: var(--own); stroke-width: 2; }
svg .line { fill: none; stroke: var(--m); stroke-width: 2; }
svg .line.own { stroke: var(--own); stroke-dasharray: 5 4; }
svg .box { fill: var(--m); fill-opacity: 0.3; stroke: var(--m); }
svg .box.own { fill: var(--own); stroke: var(--own); fill-opacity: 0.15; }
svg .median { stroke: var(--m); stroke-width: 3; } svg .median.own { stroke: var(--own); }
svg .area { fill: var(--m); fill-opacity: 0.2; stroke: var(--m); stroke-width: 1.5; }
svg .area.own { fill: none; stroke: var(--own); }
.m0 { --m: var(--m0); } .m1 { --m: var(--m1); } .m2 { --m: var(--m2); }
.m3 { --m: var(--m3); } .m4 { --m: var(--m4); } .m5 { --m: var(--m5); }
"""
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 12, 44


@dataclass(kw_only=True)
class Plot:
    """An area with axes; `marks` are its SVG elements, drawn in order."""

    x: tuple[float, float]
    y: tuple[float, float]
    height: int = 320
    left: int = _LEFT
    bottom: int = _BOTTOM
    marks: list[str] = field(default_factory=list)

    def px(self, x: float) -> float:
        """Pixel column of a value."""
        low, high = self.x
        return round(self.left + (x - low) / (high - low) * (WIDTH - self.left - _RIGHT), 1)

    def py(self, y: float) -> float:
        """Pixel row of a value."""
        low, high = self.y
        return round(_TOP + (high - y) / (high - low) * (self.height - _TOP - self.bottom), 1)

    def svg(self, label: str) -> str:
        """Returns the complete SVG element; `label` is for screen readers."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" '
            f'aria-label="{html.escape(label)}">{"".join(self.marks)}</svg>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """Draws a line between two pixels."""
        self.marks.append(f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')

    def text(self, x: float, y: float, text: str, kind: str = "", turned: bool = False) -> None:
        """Writes text at a pixel."""
        turn = f' transform="rotate(-90 {x} {y})"' if turned else ""
        self.marks.append(f'<text class="{kind}" x="{x}" y="{y}"{turn}>{html.escape(text)}</text>')

    def dot(self, x: float, y: float, kind: str, title: str) -> None:
        """Draws a dot at a point given in values."""
        self.marks.append(
            f'<circle class="{kind}" cx="{self.px(x)}" cy="{self.py(y)}" r="4.5">'
            f"<title>{html.escape(title)}</title></circle>"
        )

    def box(self, x: tuple[float, float], y: tuple[float, float], kind: str, title: str) -> None:
        """Draws a rectangle between two pixel columns `x` and two values `y`."""
        top, bottom = self.py(max(y)), self.py(min(y))
        self.marks.append(
            f'<rect class="{kind}" x="{x[0]:.1f}" y="{top}" width="{x[1] - x[0]:.1f}" '
            f'height="{max(1.0, bottom - top):.1f}"><title>{html.escape(title)}</title></rect>'
        )

    def path(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Connects points, given in values, by straight lines."""
        steps = " ".join(f"{self.px(x)},{self.py(y)}" for x, y in points)
        self.marks.append(f'<polyline class="{kind}" points="{steps}"/>')

    def x_axis(self, ticks: Sequence[tuple[float, str]], title: str, grid: bool = True) -> None:
        """Draws ticks, given as (value, label), and a title below the area."""
        floor = self.height - self.bottom
        for value, label in ticks:
            if grid:
                self.line(self.px(value), _TOP, self.px(value), floor, "grid")
            self.text(self.px(value), floor + 17, label, "mid")
        self.text((self.left + WIDTH - _RIGHT) / 2, floor + 37, title, "mid title")

    def y_axis(self, title: str) -> None:
        """Draws ticks at round numbers and a title on the left."""
        for value in round_ticks(*self.y):
            row = self.py(value)
            self.line(self.left, row, WIDTH - _RIGHT, row, "grid")
            self.text(self.left - 8, row + 4, tick_label(value), "end")
        self.text(15, (_TOP + self.height - self.bottom) / 2, title, "mid title", turned=True)


def tick_label(value: float) -> str:
    """Formats a round number with a proper minus sign."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def round_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Returns about that many multiples of 1, 2 or 5 times a power of ten between two values."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def value_range(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    """Returns the range of the finite values with a margin; (-1, 1) if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return (-1.0, 1.0)
    low, high = min(finite), max(finite)
    spare = max((high - low) * margin, 0.5)
    return (low - spare, high + spare)


@dataclass(frozen=True, kw_only=True)
class Series:
    """The values of one model, or of the mixture."""

    name: str
    kind: str
    """Class in the style sheet."""
    values: Sequence[Any]
    """Numbers, or what the docstring of the plot asks for."""


def plot_tracks(names: Sequence[str], series: Sequence[Series], title: str) -> str:
    """Draws a row per track and a dot per series; the first series sorts the rows, best first."""
    first = np.nan_to_num(series[0].values, nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    x = value_range([value for one in series for value in one.values])
    height = _TOP + _BOTTOM + 20 * len(names)
    plot = Plot(x=x, y=(-0.5, len(names) - 0.5), height=height, left=250)
    plot.x_axis([(tick, tick_label(tick)) for tick in round_ticks(*x, about=9)], title)
    for place, index in enumerate(np.argsort(-first, kind="stable")):
        row, name = len(names) - 1 - place, names[index]
        plot.text(
            plot.left - 8, plot.py(row) + 4, name if len(name) <= 36 else name[:35] + "…", "end"
        )
        here = [one for one in series if math.isfinite(one.values[index])]
        if here:
            ends = [plot.px(f(one.values[index] for one in here)) for f in (min, max)]
            plot.line(ends[0], plot.py(row), ends[1], plot.py(row), "span")
        for one in reversed(here):
            value = one.values[index]
            plot.dot(value, row, one.kind, f"{name}\n{one.name}: {value:.2f} dB")
    return plot.svg(title)


def plot_lengths(lengths_s: Sequence[int], series: Sequence[Series], title: str) -> str:
    """Draws lines over the length of the input, on a logarithmic axis."""
    at = [math.log2(length) for length in lengths_s]
    y = value_range([value for one in series for value in one.values], 0.12)
    plot = Plot(x=(min(at) - 0.3, max(at) + 0.3), y=y)
    plot.y_axis(title)
    labels = [(x, f"{length} s") for x, length in zip(at, lengths_s, strict=True)]
    plot.x_axis(labels, "length of the pieces, each separated on its own")
    for one in series:
        points = [(x, v) for x, v in zip(at, one.values, strict=True) if math.isfinite(v)]
        plot.path(points, f"line {one.kind}")
        for x, value in points:
            plot.dot(x, value, one.kind, f"{one.name}\n{2**x:.0f} s: {value:.2f} dB")
    return plot.svg(title)


def plot_boxes(series: Sequence[Series], title: str, below: str) -> str:
    """Draws boxes from the first to the third quartile with the median, side by side in each bin.

    Args:
        series: Series of `OnsetBin`s, whose durations are the same in all of them.
        title: Title of the vertical axis.
        below: Title of the horizontal axis.
    """
    boxes = [box for one in series for box in one.values]
    bins = [box.durations for box in series[0].values]
    y = value_range([value for box in boxes for value in (box.quartile_1, box.quartile_3)], 0.1)
    plot = Plot(x=(-0.5, len(bins) - 0.5), y=y, bottom=_BOTTOM + 16)
    plot.y_axis(title)
    plot.x_axis(list(enumerate(bins)), "", grid=False)
    floor = plot.height - plot.bottom
    plot.text((plot.left + WIDTH - _RIGHT) / 2, floor + 53, below, "mid title")
    width = (plot.px(1) - plot.px(0)) * 0.7 / len(series)
    for index, name in enumerate(bins):
        counts = dict.fromkeys(str(one.values[index].count) for one in series)
        plot.text(plot.px(index), floor + 33, f"n = {'/'.join(counts)}", "mid faint")
        for place, one in enumerate(series):
            box = one.values[index]
            if math.isnan(box.median):
                continue
            left = plot.px(index) + (place - len(series) / 2) * width
            edges = (left + 2, left + width - 2)
            label = f"{one.name}\n{name}: median {box.median:.2f} dB, quartiles "
            label += f"{box.quartile_1:.2f} and {box.quartile_3:.2f} dB"
            plot.box(edges, (box.quartile_1, box.quartile_3), f"box {one.kind}", label)
            level = plot.py(box.median)
            plot.line(edges[0], level, edges[1], level, f"median {one.kind}")
    return plot.svg(title)


def plot_histogram(series: Sequence[Series], title: str, low: int = -20, high: int = 30) -> str:
    """Draws a histogram with bins of width 1; values outside the range count in the end bins."""
    edges = np.arange(low, high + 1)
    shares = []
    for one in series:
        values = np.asarray(one.values, np.float64)
        values = np.clip(values[~np.isnan(values)], low, high - 1e-6)
        shares.append(np.histogram(values, edges)[0] / max(1, values.size) * 100)
    top = max(1.0, max(float(share.max()) for share in shares)) * 1.08
    plot = Plot(x=(low, high), y=(0, top))
    plot.y_axis("% of seconds")
    ticks = [(tick, tick_label(tick)) for tick in round_ticks(low, high, 10)]
    plot.x_axis(ticks, title)
    for one, share in zip(series, shares, strict=True):
        corners = [(float(low), 0.0)]
        for left, value in zip(edges[:-1], share, strict=True):
            corners += [(float(left), float(value)), (float(left + 1), float(value))]
        plot.path([*corners, (float(high), 0.0)], f"area {one.kind}")
    return plot.svg(title)


def plot_picture(uri: str, start_s: float, duration_s: float, label: str) -> str:
    """Draws a spectrogram image with axes."""
    plot = Plot(
        x=(start_s, start_s + duration_s),
        y=(math.log10(LOWEST_HZ), math.log10(HIGHEST_HZ)),
        height=216,
        bottom=28,
    )
    area = (WIDTH - plot.left - _RIGHT, plot.height - _TOP - plot.bottom)
    plot.marks.append(
        f'<image href="{uri}" x="{plot.left}" y="{_TOP}" width="{area[0]}" height="{area[1]}" '
        'preserveAspectRatio="none"/>'
    )
    for hertz, name in ((100, "100"), (1000, "1 k"), (10_000, "10 k")):
        plot.text(plot.left - 8, plot.py(math.log10(hertz)) + 4, name, "end")
    plot.text(15, _TOP + area[1] / 2, "Hz", "mid title", turned=True)
    for second in round_ticks(*plot.x, about=8):
        plot.text(plot.px(second), plot.height - plot.bottom + 17, clock(second), "mid")
    return plot.svg(label)


def clock(seconds: float) -> str:
    """Formats a time as m:ss, with tenths unless they are zero."""
    whole = int(seconds)
    tenths = f".{round((seconds - whole) * 10)}" if round((seconds - whole) * 10) else ""
    return f"{whole // 60}:{whole % 60:02d}{tenths}"
