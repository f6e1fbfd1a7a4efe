"""Picture files: opened whole, or refused with the reason."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from relprop.errors import InvalidFile
from relprop.zoo.pictures import DAMAGED, is_svg

_RUN_A_PROGRAM = {"EPS"}  # pillow draws these with Ghostscript


def open_picture(path: Path) -> Image.Image:
    """The picture in a file, fully read; of an animation or a file of several pages the first.

    Raises InvalidFile for what is missing, no picture, truncated or too large.
    """
    if path.is_dir():
        raise InvalidFile(f"it is a folder; name the pictures in it, for example {path}/*.png")
    if not path.exists():
        raise InvalidFile("there is no such file; check the path (addresses of the web are not fetched)")
    try:
        start = path.open("rb").read(1024)
        if not start:
            raise InvalidFile("the file is empty")
        if path.suffix.lower() == ".svg" or is_svg(start):
            raise InvalidFile("SVG is a drawing and has no pixels; convert it to PNG first")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(path)
            if picture.format in _RUN_A_PROGRAM:
                raise InvalidFile(f"{picture.format} is a drawing and has no pixels; convert it to PNG first")
            picture.load()
    except UnidentifiedImageError:
        raise InvalidFile(
            "this is no picture that can be read (PNG, JPEG, WebP, GIF, BMP, TIFF and others can); convert it to PNG "
            "first"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidFile(
            f"the picture has more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels; make it smaller first"
        ) from None
    except DAMAGED as error:
        raise InvalidFile(f"the picture is damaged or truncated ({error}); get or save it again") from error
    return picture


def fitting_model(picture: Image.Image) -> str:
    """The zoo's model for a picture of this look."""
    return "mnist-cnn" if is_digit(picture) else "efficientnet-lite0"


def is_digit(picture: Image.Image) -> bool:
    """Whether a picture looks like one of MNIST: 28 x 28 pixels without colour."""
    if picture.size != (28, 28):
        return False
    red, green, blue = picture.convert("RGB").split()
    return red.tobytes() == green.tobytes() == blue.tobytes()
