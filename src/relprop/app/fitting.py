"""From drawings and pictures to the input of a user's model, where no preprocessing is given."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image
from torch import Tensor

from relprop.errors import InvalidInput
from relprop.zoo.pictures import Layout

Bound = float | Tensor


def drawing_between(low: Bound, high: Bound) -> Callable[[Tensor], Tensor]:
    """From ink in 0..255 to values from `low`, the background, to `high`."""
    return lambda ink: low + ink / 255 * (high - low)


def fitted(shape: tuple[int, ...], low: Bound, high: Bound) -> Callable[[Image.Image], Tensor]:
    """From a picture to an input of this shape, (channels, height, width) or (height, width, channels): its centre in
    these proportions, resized, with black at `low` and white at `high`. Raises InvalidInput for other shapes."""
    layout = Layout.of(shape)
    if layout is None:
        raise InvalidInput(
            f"input_shape={shape}: a picture has 1 channel (grey) or 3 (colour), first or last; give preprocess=... "
            "for another input"
        )
    return lambda picture: (low + layout.pixels(picture) * (high - low)).float()
