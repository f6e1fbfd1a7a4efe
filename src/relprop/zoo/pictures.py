"""Pictures of any kind made plain, and cut to what a model takes, before its own preprocessing."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from relprop.errors import InvalidInput

# What pillow raises of a file that is not whole.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error)
_SIXTEEN_BIT = ("I", "F")
_MODES = {1: "L", 3: "RGB"}  # by the number of channels


def plain(picture: Image.Image) -> Image.Image:
    """The picture as RGB: turned upright as its EXIF data say, transparent parts laid on white.

    Raises `InvalidInput` for anything that is not a PIL image, is empty, or has more than 8 bits per channel.
    """
    if not isinstance(picture, Image.Image):
        raise InvalidInput(
            f"expected a PIL image but got {type(picture).__name__}: open a file with PIL.Image.open(path), "
            "or turn a uint8 array into an image with PIL.Image.fromarray(array)"
        )
    if 0 in picture.size:
        raise InvalidInput(f"the picture is {picture.width} x {picture.height} pixels: give one that is not empty")
    if picture.mode.startswith(_SIXTEEN_BIT):
        raise InvalidInput(
            f"the picture has more than 8 bits per channel (PIL mode {picture.mode}), and what its white is can't be "
            "known: scale it to 0..255 and turn it into a uint8 image first"
        )
    upright = ImageOps.exif_transpose(picture).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")


def is_svg(start: bytes) -> bool:
    """Whether a file that starts so is an SVG, which is a drawing and has no pixels."""
    return start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<") and b"<svg" in start


@dataclass(frozen=True)
class Layout:
    """How a model takes a picture: (channels, height, width), or with the channels last, as Keras has them."""

    channels: int
    height: int
    width: int
    channels_last: bool = False

    @classmethod
    def of(cls, shape: Sequence[int | None], side: int | None = None) -> Layout | None:
        """The layout of an input of this shape, without the batch; `side` is that of what the shape leaves open.

        None where the shape is no picture's: of another number of sides, or of channels than 1 (grey) and 3 (colour).
        """
        if len(shape) != 3:
            return None
        last = shape[0] not in _MODES and shape[2] in _MODES
        channels, *sides = (shape[2], *shape[:2]) if last else shape
        height, width = (each or side for each in sides)
        if channels not in _MODES or height is None or width is None:
            return None
        return cls(channels, height, width, last)

    def pixels(self, picture: Image.Image) -> Tensor:
        """A picture's centre in these proportions, resized, as (1, *shape): float32, from 0 for black to 1 for white.

        Raises InvalidInput as `plain` does.
        """
        whole = plain(picture).convert(_MODES[self.channels])
        ratio = max(self.width / whole.width, self.height / whole.height)
        width, height = self.width / ratio, self.height / ratio
        left, top = (whole.width - width) / 2, (whole.height - height) / 2
        box = (left, top, left + width, top + height)
        cut = whole.resize((self.width, self.height), Image.Resampling.BICUBIC, box=box)
        values = torch.from_numpy(np.array(cut, dtype=np.float32) / 255).reshape(self.height, self.width, self.channels)
        return (values if self.channels_last else values.permute(2, 0, 1)).contiguous()[None]

    def per_channel(self, figures: Tensor) -> Tensor:
        """Figures (channels,) or (1,) in a shape that goes with `pixels`."""
        return figures if self.channels_last else figures[:, None, None]
