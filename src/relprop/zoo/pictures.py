"""Pictures of any kind made plain, before a model's own preprocessing."""

from __future__ import annotations

from PIL import Image, ImageOps

from relprop.errors import InvalidInput

_SIXTEEN_BIT = ("I", "F")


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
