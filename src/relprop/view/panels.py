"""From the relevance of one sample to the flat maps that a picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relprop.errors import InvalidInput, NonFinite
from relprop.view.style import Style

Array = NDArray[np.float64]

MOST_PANELS = 16  # channels or slices of one sample; more are thinned out evenly


@dataclass(frozen=True, eq=False)
class Panel:
    """One flat map: `heat` is (height, width), `base` the grey picture under an overlay."""

    heat: Array
    caption: str = ""
    base: Image.Image | None = None

    @property
    def is_strip(self) -> bool:
        """Whether it is a single row: features, tokens, time steps."""
        return len(self.heat) == 1


@dataclass(frozen=True, eq=False)
class Sample:
    """What is drawn of one explained sample; `limit` is the |R| of full colour, shared by its panels.

    `claim` says what positive relevance speaks for: "cat", "class 3", "the score".
    """

    claim: str
    score: float
    total: float
    panels: tuple[Panel, ...]
    limit: float = 0.0


def panels(relevance: Array, values: Array | None, style: Style, name: str = "") -> tuple[Panel, ...]:
    """The maps of one sample's `relevance` at one input.

    A number or (features,) gives a strip; (height, width) or (channels, time) is shown as it is; (channels, height,
    width) is summed over its channels, or gives a panel for each; (channels, depth, height, width) gives the slices of
    its sum. The channels may also come last. `values` (same shape) are the input itself, needed for an overlay.
    """
    if not np.isfinite(relevance).all():
        where = f" of the input {name!r}" if name else ""
        raise NonFinite(f"The relevance{where} holds NaN or infinity, so there is no picture of it.")
    if relevance.size == 0 or relevance.ndim > 4:
        raise InvalidInput(
            f"Relevance of shape {relevance.shape} per sample can't be drawn: at most (channels, depth, height, "
            "width), and not empty. Sum or index it first, or keep the figures with save('name.npz')."
        )
    maps = _maps(relevance, style.channels)
    made = tuple(Panel(heat, ", ".join(part for part in (name, caption) if part)) for caption, heat in maps)
    if style.overlay is None or style.image is not None:
        return made
    if values is None or values.shape != relevance.shape or values.ndim < 2:
        raise InvalidInput(
            f"An overlay needs an input that is a picture, and this one has the shape "
            f"{None if values is None else values.shape} per sample. Leave overlay= out, or give image=."
        )
    greys = _maps(_brightness(values), "mean")
    if len(made) != len(greys):  # one panel per channel, all over the same picture
        greys = greys * len(made)
    return tuple(replace(panel, base=_grey(grey)) for panel, (_, grey) in zip(made, greys, strict=True))


def with_image(made: Sequence[Panel], image: Image.Image) -> tuple[Panel, ...]:
    """The panels over `image`, a picture of the input in any resolution. Raises InvalidInput if its sides don't fit."""
    for panel in made:
        height, width = panel.heat.shape
        if not 0.97 < (image.width * height) / (image.height * width) < 1.03:
            raise InvalidInput(
                f"image= is {image.width} x {image.height}, which does not have the proportions of the relevance, "
                f"{width} x {height}: crop it to what the model was shown."
            )
    return tuple(replace(panel, base=image.convert("L")) for panel in made)


def with_limits(samples: Sequence[Sample], style: Style) -> tuple[Sample, ...]:
    """The samples with the |R| that gets full colour: their own largest, a percentile of it, or a common one."""
    if style.limit is not None and style.limit != "batch":
        return tuple(replace(sample, limit=float(style.limit)) for sample in samples)
    if style.limit == "batch":
        common = _largest([panel for sample in samples for panel in sample.panels], style.clip)
        return tuple(replace(sample, limit=common) for sample in samples)
    return tuple(replace(sample, limit=_largest(sample.panels, style.clip)) for sample in samples)


def input_picture(values: Array) -> Image.Image | None:
    """The input of one sample as a picture, from its least value to its greatest; None if it isn't a picture."""
    if values.ndim not in (2, 3) or values.size == 0 or min(values.shape[-2:]) == 1 or not np.isfinite(values).all():
        return None
    bright = _brightness(values)
    if values.ndim == 3:
        bright = _channels_first(bright)
        if bright.shape[0] == 3:
            return Image.fromarray(np.rint(np.moveaxis(bright, 0, -1) * 255).astype(np.uint8))
        bright = bright.mean(axis=0)
    return _grey(bright)


def _maps(values: Array, channels: str) -> list[tuple[str, Array]]:
    """(caption, flat map) for each panel; `channels` says "sum", "mean" or "each"."""
    if values.ndim <= 1:
        return [("", values.reshape(1, -1))]
    if values.ndim == 2:
        return [("", values)]
    values = _channels_first(values)
    if channels == "each" and values.ndim == 3:
        return _thinned("channel", values)
    joined = values.mean(axis=0) if channels == "mean" else values.sum(axis=0)
    return _thinned("slice", joined) if joined.ndim == 3 else [("", joined)]


def _thinned(word: str, stack: Array) -> list[tuple[str, Array]]:
    """At most MOST_PANELS of the maps in `stack`, evenly spread, the first and the last among them."""
    count = len(stack)
    if count == 1:
        return [("", stack[0])]
    chosen = np.unique(np.rint(np.linspace(0, count - 1, min(count, MOST_PANELS))).astype(int)).tolist()
    return [(f"{word} {index}", stack[index]) for index in chosen]


def _channels_first(values: Array) -> Array:
    """Channels come last, as Keras has them, where the last side is that of a colour picture and the least of all."""
    last = values.shape[-1]
    if last in (1, 3, 4) and last < min(values.shape[:-1]):
        return np.moveaxis(values, -1, 0)
    return values


def _brightness(values: Array) -> Array:
    """`values` mapped to [0, 1] from least to greatest; a constant input is half bright."""
    if not np.isfinite(values).all():
        raise NonFinite("The input holds NaN or infinity, so there is no picture of it to lie under the overlay.")
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.full_like(values, 0.5)


def _grey(bright: Array) -> Image.Image:
    return Image.fromarray(np.rint(bright * 255).astype(np.uint8))


def _largest(shown: Sequence[Panel], clip: float | None) -> float:
    """The largest |R| of the panels, or the `clip` percentile of |R|; that being zero, the largest after all."""
    size = np.concatenate([np.abs(panel.heat).ravel() for panel in shown])
    limit = float(np.percentile(size, clip)) if clip is not None else 0.0
    return limit if limit > 0 else float(size.max())
