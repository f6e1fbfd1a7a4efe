"""Curves as pictures, by matplotlib (the extra "plot")."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from relprop.errors import MissingExtra
from relprop.evaluate.measurement import RANDOM, Curves

# Okabe and Ito's colours, which people who see fewer colours can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#000000")
GREY = "#777777"
MARKERS = "osD^vP*"
MARKS = 12  # more marks than this would hide the curve


def drawn(curves: Sequence[Curves], kind: str) -> bytes:
    """The curves side by side, as a file of this kind, "png" or "svg". Raises MissingExtra without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra(
            'a picture of curves needs matplotlib: pip install "relprop[plot]". .json and .md work without it.'
        ) from None
    # Texts as text, names of parts that don't change from run to run: a small file, the same each time.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "relprop", "font.size": 9}):
        figure = Figure(figsize=(4.2 * len(curves) + 1.4, 3.2), layout="constrained", facecolor="white")
        axes = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
        for axis, each in zip(axes, curves, strict=True):
            _draw(axis, each)
        axes[0].set_ylabel(curves[0].y_label)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
        buffer = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, dpi=130, metadata=metadata)
    return buffer.getvalue() if kind == "svg" else _reduced(buffer)


def _reduced(png: io.BytesIO) -> bytes:
    """A PNG file with a palette of 64 colours, a fraction of the size."""
    smaller = io.BytesIO()
    Image.open(png).convert("RGB").quantize(64).save(smaller, "PNG", optimize=True)
    return smaller.getvalue()


def _draw(axis: Any, curves: Curves) -> None:
    places = iter(range(len(curves.values)))
    apart = max(1, len(curves.steps) // MARKS)
    for name, values in curves.values.items():
        if name == RANDOM:
            axis.plot(curves.steps, values, "--", color=GREY, label=name)
            continue
        place = next(places)
        axis.plot(
            curves.steps,
            values,
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=4,
            markevery=apart,
            label=name,
        )
    axis.set(title=curves.title, xlabel=curves.x_label)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(color="#e5e5e5", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
