"""The SVG of `bsmamba2.evaluation.charts` as a PNG, for what cannot show SVG.

It draws the shapes that `Plot` makes (line, polyline, circle, rect, text) in the light colours of
the page's own style sheet, and nothing else. Pillow, which tensorboard brings along, sets the text.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from bsmamba2.errors import BsmError
from bsmamba2.evaluation.page import STYLE

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

SCALE = 2
"""Pixels of the picture for one of the SVG."""
_SMOOTH = 3  # drawn so many times larger, for edges without steps
_MARGIN, _HEADING = 16, 34  # of the SVG's pixels
_DASH = (5.0, 4.0)
_COLOURS = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", STYLE.partition("@media")[0]))


def write_png(path: Path, figures: Sequence[tuple[str, str]]) -> None:
    """Draws figures below each other.

    Args:
        path: Whatever its suffix.
        figures: Heading and SVG element of each.

    Raises:
        BsmError: Pillow is not installed.
    """
    try:
        from PIL import Image
        from PIL.ImageDraw import Draw
    except ImportError as error:
        raise BsmError(
            "A PNG needs Pillow: pip install pillow, or name an .html file, which needs nothing."
        ) from error
    elements = [(heading, ElementTree.fromstring(svg)) for heading, svg in figures]
    sizes = [_size(element) for _, element in elements]
    width = max((size[0] for size in sizes), default=1) + 2 * _MARGIN
    height = sum(size[1] + _HEADING for size in sizes) + 2 * _MARGIN
    large = SCALE * _SMOOTH
    image = Image.new("RGB", (round(width * large), round(height * large)), _COLOURS["card"])
    draw, top = Draw(image), float(_MARGIN)
    for (heading, element), size in zip(elements, sizes, strict=True):
        _Pen(draw, _MARGIN, top, image).text(0, 18, heading, 16, _COLOURS["text"], "ls")
        _Pen(draw, _MARGIN, top + _HEADING, image).draw(element)
        top += size[1] + _HEADING
    smaller = (image.width // _SMOOTH, image.height // _SMOOTH)
    image.resize(smaller, Image.Resampling.LANCZOS).save(path, "PNG", optimize=True)


def _size(element: ElementTree.Element) -> tuple[float, float]:
    _, _, width, height = map(float, element.attrib["viewBox"].split())
    return width, height


class _Pen:
    """Draws elements with the origin of one figure."""

    def __init__(self, draw: ImageDraw, left: float, top: float, image: Any) -> None:
        self._draw, self._origin, self._image = draw, (left, top), image

    def draw(self, svg: ElementTree.Element) -> None:
        for element in svg:
            kind = set(element.get("class", "").split())
            getattr(self, f"_{element.tag}")(element, kind)

    def _point(self, x: float, y: float) -> tuple[float, float]:
        large = SCALE * _SMOOTH
        return (self._origin[0] + x) * large, (self._origin[1] + y) * large

    def _line(self, element: ElementTree.Element, kind: set[str]) -> None:
        x1, y1, x2, y2 = (float(element.attrib[name]) for name in ("x1", "y1", "x2", "y2"))
        self._stroke([(x1, y1), (x2, y2)], _COLOURS["line"], 3 if "span" in kind else 1)

    def _polyline(self, element: ElementTree.Element, kind: set[str]) -> None:
        pairs = [pair.split(",") for pair in element.attrib["points"].split()]
        points = [(float(x), float(y)) for x, y in pairs]
        if "own" in kind:
            for dash in _dashes(points):
                self._stroke(dash, _COLOURS["own"], 2)
        else:
            self._stroke(points, _colour(kind), 2)

    def _circle(self, element: ElementTree.Element, kind: set[str]) -> None:
        x, y, radius = (float(element.attrib[name]) for name in ("cx", "cy", "r"))
        for size, colour in ((radius + 0.75, _COLOURS["card"]), (radius - 0.75, _colour(kind))):
            box = [*self._point(x - size, y - size), *self._point(x + size, y + size)]
            self._draw.ellipse(box, fill=colour)

    def _rect(self, element: ElementTree.Element, kind: set[str]) -> None:
        x, y, width, height = (float(element.attrib[n]) for n in ("x", "y", "width", "height"))
        box = [*self._point(x, y), *self._point(x + width, y + height)]
        self._draw.rectangle(box, fill=_colour(kind))

    def _text(self, element: ElementTree.Element, kind: set[str]) -> None:
        faint = kind & {"title", "faint"}
        anchor = {"mid": "ms", "end": "rs"}.get(next(iter(kind & {"mid", "end"}), ""), "ls")
        size = 11 if "faint" in kind else 12
        colour = _COLOURS["faint" if faint else "text"]
        x, y = float(element.attrib["x"]), float(element.attrib["y"])
        self.text(x, y, element.text or "", size, colour, anchor, "transform" in element.attrib)

    def text(
        self, x: float, y: float, text: str, size: int, colour: str, anchor: str, up: bool = False
    ) -> None:
        """Text at its baseline; `up` turns it by a quarter to the left."""
        from PIL import Image, ImageFont
        from PIL.ImageDraw import Draw

        font = ImageFont.load_default(size * SCALE * _SMOOTH)
        where = self._point(x, y)
        if not up:
            self._draw.text(where, text, fill=colour, font=font, anchor=anchor)
            return
        left, upper, right, lower = font.getbbox(text, anchor="ls")
        tile = Image.new("L", (round(right - left) + 4, round(lower - upper) + 4), 0)
        Draw(tile).text((2 - left, 2 - upper), text, fill=255, font=font, anchor="ls")
        turned = tile.rotate(90, expand=True)
        corner = (round(where[0] + upper), round(where[1] - turned.height / 2))
        self._image.paste(colour, corner, turned)

    def _stroke(self, points: Sequence[tuple[float, float]], colour: str, width: float) -> None:
        places = [self._point(*point) for point in points]
        self._draw.line(places, fill=colour, width=round(width * SCALE * _SMOOTH), joint="curve")


def _colour(kind: set[str]) -> str:
    """Of a model's class, or of what has none."""
    return next((_COLOURS[name] for name in sorted(kind) if name in _COLOURS), _COLOURS["text"])


def _dashes(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Pieces of straight lines, as `stroke-dasharray` cuts them."""
    pieces, (dash, gap) = [], _DASH
    for (x1, y1), (x2, y2) in itertools.pairwise(points):
        length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
        at = 0.0
        while at < length:
            ends = [share / length for share in (at, min(at + dash, length))]
            pieces.append([(x1 + (x2 - x1) * t, y1 + (y2 - y1) * t) for t in ends])
            at += dash + gap
    return pieces
