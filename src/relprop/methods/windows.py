"""Windows: which values of an input are taken away, or judged, together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from relprop.errors import InvalidInput

# A picture's side is divided into this many patches, unless said otherwise.
PATCHES = 8
Sizes = int | Sequence[int] | None
Window = tuple[slice, ...]


def windows(shape: Sequence[int], patch: Sizes, stride: Sizes) -> list[Window]:
    """Windows that cover a sample of this shape, in order; those at the far border are cut off by it.

    patch: the size along the sample's positions (see `positions`), whole along the others; or a size for each
    dimension of the sample. None: an eighth of each side of a picture, else one position. stride: the distance between
    windows in the same form; None: as `patch`, side by side.
    """
    places = positions(shape)
    pictures = len(places) > 1
    default = [math.ceil(shape[d] / PATCHES) if pictures else 1 for d in places]
    size = _sizes("patch", shape, places, patch, dict(zip(places, default, strict=True)))
    step = _sizes("stride", shape, places, stride, dict(enumerate(size)))
    for length, distance in zip(size, step, strict=True):
        if distance > length:
            raise InvalidInput(
                f"stride {tuple(step)} is larger than patch {tuple(size)}, so that some values would never be covered"
            )
    starts = [
        [i * distance for i in range(math.ceil((extent - length) / distance) + 1)]
        for extent, length, distance in zip(shape, size, step, strict=True)
    ]
    return [
        tuple(slice(a, a + length) for a, length in zip(corner, size, strict=True))
        for corner in itertools.product(*starts)
    ]


def positions(shape: Sequence[int]) -> tuple[int, ...]:
    """The dimensions of a sample that hold positions, the others being features of a position.

    (values,): each value; (time, features): time, unless there is but one row; (channels, height, width), also with
    the channels last: height and width; (channels, depth, height, width): all but the channels.
    """
    if len(shape) == 0:
        return ()
    if len(shape) == 1:
        return (0,)
    if len(shape) == 2:
        return (0,) if shape[0] > 1 else (1,)
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4):
        return (0, 1)
    return tuple(range(1, len(shape)))


def segments(shape: Sequence[int], patch: Sizes = None) -> Tensor:
    """A number for every value of a sample of this shape: that of the window it lies in."""
    numbers = torch.zeros(tuple(shape), dtype=torch.int64)
    for number, window in enumerate(windows(shape, patch, None)):
        numbers[window] = number
    return numbers


def _sizes(
    option: str, shape: Sequence[int], places: Sequence[int], given: Sizes, default: dict[int, int]
) -> tuple[int, ...]:
    """A size for each dimension of a sample."""
    if given is None or isinstance(given, int):
        along = default if given is None else dict.fromkeys(places, given)
        sizes = [along.get(d, extent) for d, extent in enumerate(shape)]
    else:
        sizes = list(given)
    whole = all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in sizes)
    if len(sizes) != len(shape) or not whole or isinstance(given, bool):
        raise InvalidInput(
            f"{option}: got {given!r}, expected a size from 1, or one for each dimension of a sample of shape "
            f"{tuple(shape)}"
        )
    return tuple(min(size, extent) for size, extent in zip(sizes, shape, strict=True))
