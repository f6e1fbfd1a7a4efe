"""Heatmaps as pictures of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from relprop.view.colours import ColourMap
from relprop.view.layout import Cell, Layout, arrange, font
from relprop.view.panels import Panel, Sample
from relprop.view.style import Style

INK = (34, 34, 34)
PAPER = (255, 255, 255)
OUTLINE = (170, 170, 170)


def picture(samples: Sequence[Sample], style: Style) -> Image.Image:
    """All samples in one RGB picture, with captions and the legend that `style` asks for."""
    layout = arrange(samples, style)
    canvas = Image.new("RGB", (layout.width, layout.height), PAPER)
    draw = ImageDraw.Draw(canvas)
    alone = (layout.width, layout.height) == (layout.cells[0].width, layout.cells[0].height)
    for cell in layout.cells:
        canvas.paste(heatmap(cell.panel, cell.sample.limit, style, (cell.width, cell.height)), (cell.x, cell.y))
        if not alone:  # outside the map, so that no value is covered
            draw.rectangle(_around(cell), outline=OUTLINE)
    _draw_legend(canvas, draw, layout)
    for text in layout.texts:
        anchor = {"start": "la", "middle": "ma", "end": "ra"}[text.anchor]
        draw.text((text.x, text.y), text.text, fill=INK, font=font(text.text), anchor=anchor)
    return canvas


def heatmap(panel: Panel, limit: float, style: Style, size: tuple[int, int] | None = None) -> Image.Image:
    """One map in colour, `size` (width, height) pixels large, by default a pixel for each value.

    Zero has the middle colour of the map, |R| >= `limit` its ends. Over a base picture the colour's opacity is
    overlay * |R| / limit, so that zero shows the picture.
    """
    shares = panel.heat / limit if limit > 0 else np.zeros_like(panel.heat)
    colours = Image.fromarray(style.colours(shares))
    size = size or colours.size
    colours = colours.resize(size, Image.Resampling.NEAREST)
    if style.overlay is None or panel.base is None:
        return colours
    same = panel.base.size == (panel.heat.shape[1], panel.heat.shape[0])
    base = panel.base.resize(size, Image.Resampling.NEAREST if same else Image.Resampling.LANCZOS)
    opacity = np.rint(np.clip(np.abs(shares), 0.0, 1.0) * style.overlay * 255).astype(np.uint8)
    mask = Image.fromarray(opacity).resize(size, Image.Resampling.NEAREST)
    return Image.composite(colours, base.convert("RGB"), mask)


def colour_bar(colours: ColourMap, width: int, height: int) -> Image.Image:
    """The colours of a map from its least value to its greatest."""
    values = np.linspace(-1.0 if colours.diverging else 0.0, 1.0, width)
    return Image.fromarray(np.repeat(colours(values)[None], height, axis=0))


def _draw_legend(canvas: Image.Image, draw: ImageDraw.ImageDraw, layout: Layout) -> None:
    if layout.legend is None or layout.bar is None:
        return
    x, y, width, height = layout.bar
    canvas.paste(colour_bar(layout.legend.colours, width, height), (x, y))
    draw.rectangle((x - 1, y - 1, x + width, y + height), outline=OUTLINE)
    for swatch in layout.swatches:
        corner = (swatch.x + swatch.width - 1, swatch.y + swatch.height - 1)
        draw.rectangle((swatch.x, swatch.y, *corner), fill=swatch.colour, outline=OUTLINE)


def _around(cell: Cell) -> tuple[int, int, int, int]:
    return cell.x - 1, cell.y - 1, cell.x + cell.width, cell.y + cell.height
