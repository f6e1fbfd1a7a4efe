"""Where everything goes in a picture: maps in rows or a grid, captions, the legend. Lengths are in pixels."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from PIL import ImageFont

from relprop.view.colours import RGB
from relprop.view.legend import Legend, legend_for, number
from relprop.view.panels import Panel, Sample
from relprop.view.style import Style

# Behind Latin, Greek and Cyrillic, and the punctuation that goes with them.
_LAST_LATIN = 0x2FFF
_WIDE_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSansCJKkr-Regular.otf", "NotoSansKR-Regular.ttf", "NotoSansKR-Regular.otf",
    "NanumGothic.ttf", "malgun.ttf", "AppleSDGothicNeo.ttc", "AppleGothic.ttf", "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
)  # fmt: skip
FONT_SIZE = 13
LINE = 18
GAP = 12
SHORTER_SIDE = 224  # by default, maps are enlarged until their shorter side reaches this,
LONGER_SIDE = 1024  # as long as the longer one stays within this
STRIP_CELL = 32
LEAST_SIDE = 64
LEGEND_WIDTH = 340


@dataclass(frozen=True)
class Text:
    """A line of text; (x, y) is its upper left corner, or upper middle or right one as `anchor` says."""

    x: int
    y: int
    text: str
    anchor: str = "start"


@dataclass(frozen=True, eq=False)
class Cell:
    """A map of `sample`, to be drawn into the rectangle."""

    sample: Sample
    panel: Panel
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Swatch:
    """A rectangle of one colour with an outline."""

    x: int
    y: int
    width: int
    height: int
    colour: RGB


@dataclass
class Layout:
    """A picture as a list of things to draw. `bar` is the rectangle (x, y, width, height) of the legend's colours."""

    width: int = 0
    height: int = 0
    cells: list[Cell] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    swatches: list[Swatch] = field(default_factory=list)
    bar: tuple[int, int, int, int] | None = None
    legend: Legend | None = None


def arrange(samples: Sequence[Sample], style: Style, strip_height: int = STRIP_CELL) -> Layout:
    """Lays out the samples: one by itself, several of one map each in a grid, others in rows of maps.

    A single map without legend fills the picture exactly; everything else has a margin.
    """
    layout = Layout()
    if len(samples) == 1 and len(samples[0].panels) == 1 and not style.legend:
        width, height = enlarged(samples[0].panels[0], style.scale, strip_height)
        layout.cells.append(Cell(samples[0], samples[0].panels[0], 0, 0, width, height))
        layout.width, layout.height = width, height
        return layout
    single = all(len(sample.panels) == 1 for sample in samples)
    columns = math.ceil(math.sqrt(len(samples))) if single else 1
    y = GAP
    for start in range(0, len(samples), columns):
        x, bottom = GAP, y
        for sample in samples[start : start + columns]:
            right, below = _place(layout, sample, style, strip_height, x, y, named=style.legend and len(samples) > 1)
            x, bottom = right + GAP, max(bottom, below)
        layout.width = max(layout.width, x)
        y = bottom + GAP
    layout.height = y
    if style.legend:
        _place_legend(layout, legend_for(samples, style))
    return layout


def enlarged(panel: Panel, scale: int | None, strip_height: int = STRIP_CELL) -> tuple[int, int]:
    """Width and height of a map in the picture: every cell `scale` times, and never thinner than can be seen."""
    height, width = panel.heat.shape
    if panel.is_strip:
        return width * (scale or max(1, min(STRIP_CELL, LONGER_SIDE // width))), max(strip_height, scale or 0)
    if scale is not None:
        return width * scale, height * scale
    short, long = sorted((height, width))
    factor = max(1, min(math.ceil(SHORTER_SIDE / short), LONGER_SIDE // long))
    return width * max(factor, math.ceil(LEAST_SIDE / width)), height * max(factor, math.ceil(LEAST_SIDE / height))


def font(text: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, which needs no file on the machine; for letters that it lacks, a font of the system's."""
    return _wide_font() or _own_font() if any(ord(letter) > _LAST_LATIN for letter in text) else _own_font()


@cache
def _own_font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=FONT_SIZE)


@cache
def _wide_font() -> ImageFont.FreeTypeFont | None:
    """The first of the usual fonts with Korean, Japanese and Chinese letters that the system has."""
    for name in _WIDE_FONTS:
        try:
            return ImageFont.truetype(name, FONT_SIZE)
        except OSError:
            continue
    return None


def fit(text: str, width: int) -> str:
    """`text`, cut with an ellipsis where it is wider than `width`."""
    text = text[:1000]
    letters = font(text)
    if letters.getlength(text) <= width:
        return text
    kept = bisect_right(range(len(text)), float(width), key=lambda length: letters.getlength(text[:length] + "..."))
    return text[: max(kept - 1, 0)] + "..."


def wrap(text: str, width: int) -> list[str]:
    """`text` as lines no wider than `width`, broken between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font(longer).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [fit(line, width) for line in lines]


def _place(
    layout: Layout, sample: Sample, style: Style, strip_height: int, x: int, y: int, *, named: bool
) -> tuple[int, int]:
    """Puts a sample's maps side by side from (x, y) on, captions below; returns their right and lower ends."""
    sizes = [enlarged(panel, style.scale, strip_height) for panel in sample.panels]
    bottom, left = y + max(height for _, height in sizes), x
    several = len(sample.panels) > 1
    for panel, (width, height) in zip(sample.panels, sizes, strict=True):
        layout.cells.append(Cell(sample, panel, x, y, width, height))
        if several:
            layout.texts.append(Text(x, bottom + 3, fit(panel.caption, width)))
        x += width + GAP
    right = x - GAP
    if several:
        bottom += LINE
    if named:
        layout.texts.append(Text(left, bottom + 3, fit(f"{sample.claim}: {number(sample.score)}", right - left)))
        bottom += LINE
    return right, bottom


def _place_legend(layout: Layout, legend: Legend) -> None:
    """Adds the colour bar, its ticks and the words below what is there."""
    layout.legend = legend
    layout.width = max(layout.width, LEGEND_WIDTH)
    inner = layout.width - 2 * GAP
    wide = min(inner, LEGEND_WIDTH)
    y = layout.height
    layout.bar = (GAP, y, wide, GAP)
    y += GAP + 4
    ticks = legend.ticks
    anchors = ("start", "middle", "end") if len(ticks) == 3 else ("start", "end")
    for step, (tick, anchor) in enumerate(zip(ticks, anchors, strict=True)):
        layout.texts.append(Text(GAP + step * wide // (len(ticks) - 1), y, tick, anchor))
    y += LINE + 4
    for colour, meaning in legend.entries:
        layout.swatches.append(Swatch(GAP, y + 2, GAP, GAP, colour))
        for line in wrap(meaning, inner - 2 * GAP):
            layout.texts.append(Text(3 * GAP - 4, y, line))
            y += LINE
    for line in wrap(legend.scale, inner):
        layout.texts.append(Text(GAP, y, line))
        y += LINE
    layout.height = y + GAP - 4
