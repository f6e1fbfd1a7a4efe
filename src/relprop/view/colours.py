"""Colour maps for relevance: zero always has the colour in the middle, and the two signs never share one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relprop.errors import InvalidInput, NonFinite

STEPS = 255  # colours on each side of zero: as many as a channel of eight bits can tell apart

RGB = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class ColourMap:
    """Colours for values in [-1, 1], or in [0, 1] where `negative` is None.

    `table` is (2 * STEPS + 1, 3) for a diverging map, with zero at index STEPS, and (STEPS + 1, 3) for a positive
    one, with zero at index 0. `positive`, `zero` and `negative` are the words a legend says for its colours.
    """

    name: str
    table: NDArray[np.uint8]
    positive: str
    zero: str
    negative: str | None = None

    @property
    def diverging(self) -> bool:
        """Whether the map has colours for negative values."""
        return self.negative is not None

    def __call__(self, values: ArrayLike) -> NDArray[np.uint8]:
        """The colours (..., 3) of `values` (...), which are in units of the limit; beyond it the last colour stays.

        Raises NonFinite, and InvalidInput for negative values in a map that has no colour for them. A value so small
        that the nearest colour is that of zero is not refused.
        """
        values = np.asarray(values, dtype=np.float64)
        if not np.isfinite(values).all():
            raise NonFinite("Relevance holds NaN or infinity, which has no colour: find where it arises first.")
        if not self.diverging and values.size and values.min() < -0.5 / STEPS:
            raise InvalidInput(
                f"The colour map {self.name!r} has no colours for negative relevance, and there is some "
                f"({values.min():+.3g} of the limit). Use a diverging map such as 'RdBu_r', or draw "
                "relevance.abs() or relevance.clamp(min=0) and say so."
            )
        low = -1.0 if self.diverging else 0.0
        index = np.rint(np.clip(values, low, 1.0) * STEPS).astype(np.intp) + (STEPS if self.diverging else 0)
        colours: NDArray[np.uint8] = self.table[index]
        return colours

    def colour(self, value: float) -> RGB:
        """The colour of one value, as three numbers from 0 to 255."""
        red, green, blue = self(value).tolist()
        return red, green, blue


def _table(anchors: Sequence[tuple[float, str]], low: float) -> NDArray[np.uint8]:
    """Linear between `anchors` (position, hexadecimal colour), from `low` to 1 with STEPS colours per unit."""
    where = np.linspace(low, 1.0, round((1.0 - low) * STEPS) + 1)
    positions = [position for position, _ in anchors]
    colours = np.array([list(bytes.fromhex(colour)) for _, colour in anchors], dtype=np.float64)
    channels = [np.interp(where, positions, colours[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _even(*colours: str) -> list[tuple[float, str]]:
    """Anchors at equal distances from -1 to 1."""
    return list(zip(np.linspace(-1, 1, len(colours)).tolist(), colours, strict=True))


# ColorBrewer's RdBu with 11 classes, safe for colour-blind readers; its middle, f7f7f7, is made white for zero.
_RDBU_R = ("053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "ffffff", "fddbc7", "f4a582", "d6604d", "b2182b", "67001f")
_SEISMIC = ("00004d", "0000ff", "ffffff", "ff0000", "800000")
_COLDNHOT = ("00ffff", "0000ff", "000000", "ff0000", "ffff00")
_HOT = ((0.0, "000000"), (0.365, "ff0000"), (0.746, "ffff00"), (1.0, "ffffff"))

COLOUR_MAPS: dict[str, ColourMap] = {
    made.name: made
    for made in (
        ColourMap("RdBu_r", _table(_even(*_RDBU_R), -1.0), "red", "white", "blue"),
        ColourMap("bwr", _table(_even("0000ff", "ffffff", "ff0000"), -1.0), "red", "white", "blue"),
        ColourMap("seismic", _table(_even(*_SEISMIC), -1.0), "red", "white", "blue"),
        ColourMap("coldnhot", _table(_even(*_COLDNHOT), -1.0), "red to yellow", "black", "blue to cyan"),
        ColourMap("gray", _table(((0.0, "000000"), (1.0, "ffffff")), 0.0), "white", "black"),
        ColourMap("hot", _table(_HOT, 0.0), "red to white", "black"),
    )
}


def colour_map(name: str) -> ColourMap:
    """The colour map of this name. Raises InvalidInput, with the names there are, for another."""
    try:
        return COLOUR_MAPS[name]
    except (KeyError, TypeError):
        raise InvalidInput(f"There is no colour map {name!r}. There are: {', '.join(COLOUR_MAPS)}.") from None
