"""One explained sample as a section of a page."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from relprop.view.image import heatmap
from relprop.view.layout import enlarged
from relprop.view.legend import legend_for, number
from relprop.view.page import Picture, Section
from relprop.view.panels import Panel, Sample
from relprop.view.style import Style
from relprop.view.svg import bars, shows_bars


def section(sample: Sample, style: Style, photo: Image.Image | None, facts: Sequence[tuple[str, str]]) -> Section:
    """The input as `photo`, the figures of the sample and further `facts`, its heatmaps, and the legend if wanted."""
    figures = [
        ("explained", sample.claim),
        ("score", number(sample.score)),
        ("sum of relevance", number(sample.total)),
        ("not passed to the input", number(sample.score - sample.total)),
    ]
    return Section(
        heading=f"{sample.claim}: {number(sample.score)}",
        picture=None if photo is None else Picture(photo, "input", "the input"),
        facts=[*figures, *facts],
        heatmaps=[heatmap_of(sample, panel, style) for panel in sample.panels],
        legend=legend_for([sample], style) if style.legend else None,
    )


def heatmap_of(sample: Sample, panel: Panel, style: Style) -> Picture:
    """One map of a sample with its sum as caption, and its range for those who don't see it."""
    total = number(float(panel.heat.sum()))
    caption = f"{panel.caption}: sum {total}" if panel.caption else f"sum {total}"
    low, high = number(float(panel.heat.min())), number(float(panel.heat.max()))
    alt = f"Heatmap of the relevance for {sample.claim}: {caption}, from {low} to {high}"
    if shows_bars(panel):
        return Picture(bars(panel, sample.limit, style.colours), caption, alt)
    # Only over a given image is there more to show than a pixel for each value.
    size = None if style.image is None else enlarged(panel, style.scale)
    return Picture(heatmap(panel, sample.limit, style, size), caption, alt)
