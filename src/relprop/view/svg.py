"""Heatmaps as SVG: the maps as embedded pixels, everything said as real text."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from relprop.view.colours import RGB, ColourMap
from relprop.view.image import colour_bar, heatmap
from relprop.view.layout import FONT_SIZE, Cell, Layout, arrange
from relprop.view.legend import STRONG, number
from relprop.view.panels import Panel, Sample
from relprop.view.style import Style

MOST_BARS = 128  # a strip of more values is drawn as pixels
BARS_HEIGHT = 120

# XML 1.0 has no way to write these, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def document(samples: Sequence[Sample], style: Style) -> str:
    """The samples as a self-contained SVG document, titled and described for screen readers."""
    layout = arrange(samples, style, strip_height=BARS_HEIGHT)
    parts = [f'<rect width="{layout.width}" height="{layout.height}" fill="#fff"/>']
    parts += [_cell(cell, style) for cell in layout.cells]
    parts += _legend(layout)
    parts += [
        f'<text x="{text.x}" y="{text.y + FONT_SIZE}" text-anchor="{text.anchor}">{clean(text.text)}</text>'
        for text in layout.texts
    ]
    title = "Relevance for " + ", ".join(dict.fromkeys(sample.claim for sample in samples))
    description = " ".join(describe(sample) for sample in samples)
    return _svg(layout.width, layout.height, "\n".join(parts), title, description)


def describe(sample: Sample) -> str:
    """A sentence on one sample, for readers who don't see the picture."""
    return f"Score for {sample.claim} {number(sample.score)}, sum of relevance {number(sample.total)}."


def bars(panel: Panel, limit: float, colours: ColourMap) -> str:
    """A strip as an SVG document of bars from a zero line, positive ones upwards; no text, no background."""
    width = min(640, max(160, 24 * panel.heat.shape[1]))
    return _svg(width, BARS_HEIGHT, "\n".join(_bars(panel, limit, colours, 0, 0, width, BARS_HEIGHT)))


def clean(text: str) -> str:
    """`text` as it may stand in XML or HTML, attributes included."""
    return escape(_NOT_XML.sub("\ufffd", text))


def data_uri(image: Image.Image | str) -> str:
    """A picture, or an SVG document, as an address that holds all of it."""
    if isinstance(image, str):
        return "data:image/svg+xml;base64," + base64.b64encode(image.encode()).decode()
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def shows_bars(panel: Panel) -> bool:
    """Whether a map is drawn as bars."""
    return panel.is_strip and panel.heat.size <= MOST_BARS


def hexadecimal(colour: RGB) -> str:
    """A colour as CSS and SVG write it."""
    return "#" + bytes(colour).hex()


def _svg(width: int, height: int, content: str, title: str = "", description: str = "") -> str:
    named = f"<title>{clean(title)}</title>\n<desc>{clean(description)}</desc>\n" if title else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="{FONT_SIZE}" fill="#222">\n'
        f"{named}{content}\n</svg>\n"
    )


def _cell(cell: Cell, style: Style) -> str:
    outline = (
        f'<rect x="{cell.x - 0.5}" y="{cell.y - 0.5}" width="{cell.width + 1}" height="{cell.height + 1}" '
        'fill="none" stroke="#aaa"/>'
    )
    if shows_bars(cell.panel):
        shapes = _bars(cell.panel, cell.sample.limit, style.colours, cell.x, cell.y, cell.width, cell.height)
        return "\n".join([*shapes, outline])
    # Stored at full size, since programs other than browsers smooth what they enlarge.
    drawn = heatmap(cell.panel, cell.sample.limit, style, (cell.width, cell.height))
    return f"{_image(drawn, cell.x, cell.y)}\n{outline}"


def _image(image: Image.Image, x: int, y: int) -> str:
    return (
        f'<image x="{x}" y="{y}" width="{image.width}" height="{image.height}" style="image-rendering: pixelated" '
        f'href="{data_uri(image)}"/>'
    )


def _bars(panel: Panel, limit: float, colours: ColourMap, x: int, y: int, width: int, height: int) -> list[str]:
    values = panel.heat[0]
    shares = np.clip(values / limit, -1.0, 1.0) if limit > 0 else np.zeros_like(values)
    colours(shares)  # refuses negative values where the map has no colour for them
    zero = y + (height / 2 if colours.diverging else float(height))
    reach = zero - y
    step = width / len(values)
    drawn = []
    for index, (value, share) in enumerate(zip(values.tolist(), shares.tolist(), strict=True)):
        colour = hexadecimal(colours.colour(STRONG if share > 0 or not colours.diverging else -STRONG))
        top = zero - max(share, 0.0) * reach
        drawn.append(
            f'<rect x="{x + (index + 0.1) * step:.2f}" y="{top:.2f}" width="{0.8 * step:.2f}" '
            f'height="{abs(share) * reach:.2f}" fill="{colour}"><title>{index}: {number(value)}</title></rect>'
        )
    drawn.append(f'<path d="M{x} {zero:.1f}h{width}" stroke="#888"/>')
    return drawn


def _legend(layout: Layout) -> list[str]:
    if layout.legend is None or layout.bar is None:
        return []
    x, y, width, height = layout.bar
    return [_image(colour_bar(layout.legend.colours, width, height), x, y)] + [
        f'<rect x="{swatch.x}" y="{swatch.y}" width="{swatch.width}" height="{swatch.height}" '
        f'fill="{hexadecimal(swatch.colour)}" stroke="#aaa"/>'
        for swatch in layout.swatches
    ]
