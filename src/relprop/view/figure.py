"""Heatmaps as matplotlib figures (the extra "plot")."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np

from relprop.errors import InvalidInput, MissingExtra
from relprop.view.image import heatmap
from relprop.view.layout import enlarged
from relprop.view.legend import STRONG, Legend, legend_for, number
from relprop.view.panels import Panel, Sample
from relprop.view.style import Style
from relprop.view.svg import shows_bars


def figure(sample: Sample, style: Style, ax: Any = None) -> Any:
    """Draws one sample on the matplotlib axes `ax`, or on a new figure, unknown to pyplot; returns the figure.

    Raises MissingExtra without matplotlib, and InvalidInput where several maps would share the one `ax`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra('plot() needs matplotlib: pip install "relprop[plot]". to_pil() works without it.') from None
    if ax is None:
        made = Figure(figsize=(4.8 * len(sample.panels), 4.8), layout="constrained")
        # matplotlib lets a notebook show figures only where pyplot was imported.
        made._repr_png_ = functools.partial(_png, made)  # type: ignore[attr-defined]
        axes = [made.add_subplot(1, len(sample.panels), position + 1) for position in range(len(sample.panels))]
    elif len(sample.panels) == 1:
        made, axes = ax.figure, [ax]
    else:
        raise InvalidInput(
            f"This explanation has {len(sample.panels)} maps, and ax= holds one: leave ax out, or keep to one input "
            "and channels='sum'."
        )
    legend = legend_for([sample], style)
    for panel, axis in zip(sample.panels, axes, strict=True):
        (_draw_bars if shows_bars(panel) else _draw_map)(axis, panel, sample.limit, style)
        axis.set_title(panel.caption or f"{sample.claim}: {number(sample.score)}")
    _add_colour_bar(made, axes, sample.limit, legend)
    return made


def _png(made: Any) -> bytes:
    written = io.BytesIO()
    made.savefig(written, format="png")
    return written.getvalue()


def _draw_map(axis: Any, panel: Panel, limit: float, style: Style) -> None:
    """The map in data coordinates: column and row of each value, however it is enlarged."""
    height, width = panel.heat.shape
    size = None if panel.base is None else enlarged(panel, style.scale)
    drawn = np.asarray(heatmap(panel, limit, style, size))
    aspect = "equal" if max(height, width) <= 4 * min(height, width) else "auto"
    axis.imshow(drawn, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest", aspect=aspect)
    if panel.is_strip:
        axis.set_box_aspect(0.15)
    axis.set_xticks([])
    axis.set_yticks([])


def _draw_bars(axis: Any, panel: Panel, limit: float, style: Style) -> None:
    values = panel.heat[0]
    colours = style.colours
    colours(values / limit if limit > 0 else np.zeros_like(values))  # refuses what the map has no colour for
    signs = np.where((values >= 0) | (not colours.diverging), STRONG, -STRONG)
    axis.bar(range(len(values)), values, color=colours(signs) / 255)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.axhline(0, color="gray", linewidth=0.8)
    reach = 1.05 * limit or 1.0
    axis.set_ylim(-reach if colours.diverging else 0, reach)


def _add_colour_bar(made: Any, axes: list[Any], limit: float, legend: Legend) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    reach = limit or 1.0
    scale = Normalize(-reach if legend.colours.diverging else 0.0, reach)
    bar = made.colorbar(
        ScalarMappable(scale, ListedColormap(legend.colours.table / 255)), ax=axes, fraction=0.046, pad=0.04
    )
    words = "\n".join(meaning for _, meaning in legend.entries if not meaning.startswith(legend.zero))
    bar.set_label(words, size="small")
