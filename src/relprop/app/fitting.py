"""From drawings and pictures to the input of a user's model, where no preprocessing is given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from relprop.errors import InvalidInput
from relprop.zoo.pictures import plain

Bound = float | Tensor


def drawing_between(low: Bound, high: Bound) -> Callable[[Tensor], Tensor]:
    """From ink in 0..255 to values from `low`, the background, to `high`."""
    return lambda ink: low + ink / 255 * (high - low)


def fitted(shape: tuple[int, ...], low: Bound, high: Bound) -> Callable[[Image.Image], Tensor]:
    """From a picture to an input of this shape, (channels, height, width) or (height, width, channels): its centre in
    these proportions, resized, with black at `low` and white at `high`. Raises InvalidInput for other shapes."""
    last = shape[0] not in (1, 3) and shape[2] in (1, 3)
    height, width, channels = shape if last else (*shape[1:], shape[0])
    if channels not in (1, 3):
        raise InvalidInput(
            f"input_shape={shape}: a picture has 1 channel (grey) or 3 (colour), first or last; give preprocess=... "
            "for another input"
        )

    def preprocess(picture: Image.Image) -> Tensor:
        whole = plain(picture).convert("L" if channels == 1 else "RGB")
        ratio = max(width / whole.width, height / whole.height)
        left, top = (whole.width - width / ratio) / 2, (whole.height - height / ratio) / 2
        box = (left, top, left + width / ratio, top + height / ratio)
        pixels = np.array(whole.resize((width, height), Image.Resampling.BICUBIC, box=box), dtype=np.float32) / 255
        values = torch.from_numpy(pixels).reshape(height, width, channels)
        ordered = values if last else values.permute(2, 0, 1)
        return (low + ordered * (high - low)).contiguous().float()[None]

    return preprocess
