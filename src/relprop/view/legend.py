"""What the colours mean, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relprop.view.colours import RGB, ColourMap, colour_map
from relprop.view.panels import Sample
from relprop.view.style import Style

OVERLAID = (128, 128, 128)
STRONG = 0.75  # where on a colour map a swatch takes the colour of a sign: strong, yet not almost black


def number(value: float) -> str:
    """A signed figure with four digits, as captions show it."""
    return f"{value:+.4g}"


@dataclass(frozen=True)
class Legend:
    """The meaning of a colour map for an explanation of `claim`; `limit` is None where each picture has its own.

    `overlay` says that the input shows where there is no relevance; `clip` is the percentile of |R| that gets full
    colour in each picture, None for the largest |R|.
    """

    claim: str
    limit: float | None
    cmap: str = "RdBu_r"
    overlay: bool = False
    clip: float | None = None

    @property
    def colours(self) -> ColourMap:
        """The colour map that `cmap` names."""
        return colour_map(self.cmap)

    @property
    def zero(self) -> str:
        """The word for what is shown at zero."""
        return "the input in grey" if self.overlay else self.colours.zero

    @property
    def entries(self) -> tuple[tuple[RGB, str], ...]:
        """(colour, meaning) for each colour that has one."""
        colours = self.colours
        entries = [
            (colours.colour(STRONG), f"{colours.positive}: evidence for {self.claim}"),
            (OVERLAID if self.overlay else colours.colour(0.0), f"{self.zero}: no relevance"),
        ]
        if colours.negative is not None:
            entries.append((colours.colour(-STRONG), f"{colours.negative}: evidence against {self.claim}"))
        return tuple(entries)

    @property
    def ticks(self) -> tuple[str, ...]:
        """The figures along the colour bar, evenly spaced from its left end to its right end."""
        low, high = ("-max", "+max") if self.limit is None else (number(-self.limit), number(self.limit))
        return (low, "0", high) if self.colours.diverging else ("0", high)

    @property
    def scale(self) -> str:
        """What full colour stands for."""
        if self.limit is None:
            most = "the largest relevance" if self.clip is None else f"percentile {self.clip:g} of |relevance|"
            return f"Full colour: {most} of each picture, which has a scale of its own."
        sign = ", of either sign" if self.colours.diverging else ""
        return f"Full colour: a relevance of {self.limit:.4g} or more{sign}."


def legend_for(samples: Sequence[Sample], style: Style) -> Legend:
    """One legend for all `samples`, which may be of several classes and limits."""
    claims = {sample.claim for sample in samples}
    limits = {sample.limit for sample in samples}
    claim = claims.pop() if len(claims) == 1 else "the class that is named with the picture"
    return Legend(claim, limits.pop() if len(limits) == 1 else None, style.cmap, style.overlay is not None, style.clip)
