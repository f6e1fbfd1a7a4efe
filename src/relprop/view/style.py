"""How a picture of relevance is drawn: the choices a user has, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

from PIL import Image

from relprop.errors import InvalidInput
from relprop.view.colours import ColourMap, colour_map

PHOTO_CLIP = 99.5  # percentile of |R| with full colour in photographs, where few pixels have most of it


@dataclass(frozen=True)
class Style:
    """The choices of `Attribution.to_pil`, which explains them. Raises InvalidInput for one that can't be met."""

    cmap: str = "RdBu_r"
    clip: float | None = None
    limit: float | str | None = None
    overlay: float | None = None
    image: Image.Image | Sequence[Image.Image] | None = None
    scale: int | None = None
    channels: str = "sum"
    legend: bool = False

    def __post_init__(self) -> None:
        colour_map(self.cmap)
        if self.clip is not None and not (_is_number(self.clip) and 0 < self.clip <= 100):
            raise InvalidInput(f"clip={self.clip!r} is not a percentile; write a number in (0, 100], as 99.5.")
        if self.limit is not None and self.limit != "batch":
            if not (_is_number(self.limit) and 0 < float(self.limit) < math.inf):
                raise InvalidInput(
                    f"limit={self.limit!r} is not a relevance; write a finite number above 0, 'batch' for one limit "
                    "over all samples, or None for each sample's largest |R|."
                )
            if self.clip is not None:
                raise InvalidInput("limit= and clip= both set the value of full colour; give one of them.")
        if self.overlay is not None and not (_is_number(self.overlay) and 0 < self.overlay <= 1):
            raise InvalidInput(f"overlay={self.overlay!r} is not an opacity; write a number in (0, 1], as 0.6.")
        if self.image is not None and self.overlay is None:
            raise InvalidInput("image= is what an overlay lies on; add an opacity, as overlay=0.6.")
        if self.scale is not None and not (_is_integer(self.scale) and self.scale >= 1):
            raise InvalidInput(f"scale={self.scale!r} is not an enlargement; write a whole number from 1.")
        if self.channels not in ("sum", "each"):
            raise InvalidInput(f"channels={self.channels!r}: write 'sum', or 'each' for a picture of every channel.")

    @property
    def colours(self) -> ColourMap:
        """The colour map that `cmap` names."""
        return colour_map(self.cmap)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
