"""Pixel flipping: how fast does the score fall as the regions of a picture are replaced by their relevance?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from relprop.errors import InvalidInput
from relprop.evaluate.explanations import (
    Explanation,
    checked_explanations,
    class_scores,
    ranks,
    relevance_of,
)
from relprop.evaluate.measurement import RANDOM, Curves, Measurement, Table, leads, with_error
from relprop.models.prepare import refuse_training
from relprop.progress import Progress, told

Fill = float | Literal["uniform", "mean"]


@dataclass(frozen=True)
class PixelFlipping(Measurement):
    """What `pixel_flipping` measured.

    Attributes:
        most, least: the mean score after so many regions were replaced, the most relevant first (MoRF) and the least
            relevant first (LeRF).
        aopc_most, aopc_least: for each name the area over that curve, the mean over the steps of how far the score
            had fallen (AOPC). For a good order it is large for the most relevant first, small for the least.
        samples: how many pictures there were.
    """

    most: Curves
    least: Curves
    aopc_most: dict[str, float]
    aopc_least: dict[str, float]
    samples: int

    def curves(self) -> tuple[Curves, ...]:
        return self.most, self.least

    def tables(self) -> tuple[Table, ...]:
        differences = self.differences
        ahead = leads(differences)
        rows = tuple(
            (name, f"{most:.3f}", f"{self.aopc_least[name]:.3f}", with_error(differences[name]), ahead[name])
            for name, most in self.aopc_most.items()
        )
        title = f"Area over the curve of {self.most.steps[-1]} regions, {self.samples:,} pictures, ± standard error"
        head = ("AOPC", "most relevant first", "least relevant first", "difference", f"lead of {rows[0][0]}")
        return (Table(title, head, rows),)

    @property
    def differences(self) -> dict[str, tuple[float, ...]]:
        """For each name and picture the area over the one curve less that over the other: the larger, the better."""
        return {
            name: tuple(least - most for most, least in zip(areas, self.least.areas[name], strict=True))
            for name, areas in self.most.areas.items()
        }


def pixel_flipping(
    model: Callable[..., Any],
    x: Tensor,
    explanations: Mapping[str, Explanation],
    targets: Tensor | None = None,
    *,
    region: int = 4,
    steps: int | None = None,
    fill: Fill = "uniform",
    bounds: tuple[float, float] | None = None,
    probabilities: bool = False,
    random_orders: int = 5,
    seed: int = 0,
    batch_size: int = 100,
    progress: bool | Progress | None = None,
) -> PixelFlipping:
    """The score of the explained class as regions are replaced in the order of their relevance.

    Region perturbation of Samek et al. 2017, "Evaluating the visualization of what a deep neural network has learned":
    AOPC = 1 / (L + 1) sum over k = 0..L of f(x) - f(x with k regions replaced), the mean over the pictures (eq. 12).
    Every order meets the same replacement values.

    Args:
        model: from pictures (samples, channels, height, width) to scores (samples, classes), in evaluation mode.
        x: the pictures.
        explanations: by name, a function of (pictures, targets) that gives relevance or an Attribution, such as
            relprop.Explainer(model); or the relevance itself, shaped like `x`. Channels are summed.
        targets: (samples,), the classes whose scores are followed; by default each picture's highest.
        region: the side of the square regions in pixels; at the far borders they are cut off.
        steps: how many regions are replaced, one after the other; None for all.
        fill: "uniform" for random values between the bounds, "mean" for the picture's own mean of each channel, or a
            number.
        bounds: (low, high), what values a picture may have; by default the lowest and highest in `x`.
        probabilities: follow the softmax of the scores instead of the score itself.
        random_orders: how many random orders the floor is the mean of; 0 for no floor.
        progress: True for a bar on a terminal or in a notebook, or a function of (pictures done, pictures to do).

    Raises InvalidInput for arguments that don't fit, and what the explanations raise.
    """
    refuse_training(model)
    side = _checked_side(x, targets, region, steps, fill, random_orders)
    explained = checked_explanations(explanations, len(x))
    regions = side[0] * side[1]
    count = regions if steps is None else steps
    chance = torch.Generator().manual_seed(seed)
    low, high = (float(x.min()), float(x.max())) if bounds is None else bounds
    names = (*explained, *([RANDOM] if random_orders else []))
    scores = {name: torch.zeros(2, len(x), count + 1, dtype=torch.float64) for name in names}
    for chosen in told(torch.split(torch.arange(len(x)), batch_size), progress, "replacing regions", len):
        pictures = x[chosen]
        classes = class_scores(model, pictures).argmax(1) if targets is None else targets[chosen].to(x.device)
        work = _Work(model, pictures, classes, _values(pictures, fill, low, high, chance), region, side, probabilities)
        for name, explanation in explained.items():
            relevance = relevance_of(name, explanation, pictures, classes, chosen.tolist(), 4)
            scores[name][:, chosen] = work.curves(_region_sums(relevance, region), count)
        for _ in range(random_orders):
            keys = torch.rand(len(chosen), regions, generator=chance, dtype=torch.float64)
            scores[RANDOM][:, chosen] += work.curves(keys, count) / random_orders
    y_label = "probability" if probabilities else "score"
    most, least = (
        Curves.of(
            f"{len(x):,} pictures: the {first} relevant first",
            {name: each[place] for name, each in scores.items()},
            f"regions of {region} x {region} pixels replaced",
            y_label,
        )
        for place, first in enumerate(("most", "least"))
    )
    areas = [{name: aopc(curve) for name, curve in each.values.items()} for each in (most, least)]
    return PixelFlipping(most, least, areas[0], areas[1], len(x))


def aopc(curve: tuple[float, ...]) -> float:
    """The area over a perturbation curve f(x_0), ..., f(x_L): the mean of f(x_0) - f(x_k) over k = 0..L."""
    return sum(curve[0] - value for value in curve) / len(curve)


@dataclass(frozen=True)
class _Work:
    """A batch whose regions are replaced: the pictures, and the values, of the same shape, that take their place."""

    model: Callable[..., Any]
    pictures: Tensor
    classes: Tensor  # (batch,)
    values: Tensor
    region: int
    side: tuple[int, int]
    probabilities: bool

    def curves(self, keys: Tensor, count: int) -> Tensor:
        """(2, batch, count + 1): the scores after each number of regions, those with the largest of the keys (batch,
        regions) first, and those with the smallest first."""
        orders = ranks(keys), ranks(-keys)
        return torch.stack([torch.stack([self._scores(order < k) for k in range(count + 1)], 1) for order in orders])

    def _scores(self, replaced: Tensor) -> Tensor:
        """(batch,): the scores without the regions where `replaced`, (batch, regions), is True."""
        mask = replaced.reshape(-1, 1, *self.side).repeat_interleave(self.region, 2).repeat_interleave(self.region, 3)
        height, width = self.pictures.shape[2:]
        mask = mask[:, :, :height, :width].to(self.pictures.device)
        scores = class_scores(self.model, torch.where(mask, self.values, self.pictures))
        scores = scores.softmax(1) if self.probabilities else scores
        return scores.gather(1, self.classes[:, None])[:, 0].double().cpu()


def _region_sums(relevance: Tensor, region: int) -> Tensor:
    """(batch, regions): relevance (batch, channels, height, width) summed over each region, row by row."""
    heat = relevance.sum(1, keepdim=True).cpu()
    padded = F.pad(heat, (0, -heat.shape[3] % region, 0, -heat.shape[2] % region))
    return F.avg_pool2d(padded, region).flatten(1) * region**2


def _values(x: Tensor, fill: Fill, low: float, high: float, chance: torch.Generator) -> Tensor:
    """What takes the pixels' place, shaped like x."""
    if fill == "uniform":
        drawn = torch.rand(x.shape, generator=chance, dtype=torch.float64)
        return (low + (high - low) * drawn).to(x)
    if fill == "mean":
        return x.mean((2, 3), keepdim=True).expand_as(x)
    return torch.full_like(x, float(fill))


def _checked_side(
    x: Any, targets: Any, region: int, steps: int | None, fill: Any, random_orders: int
) -> tuple[int, int]:
    """How many regions there are from top to bottom and from left to right. Raises InvalidInput."""
    if not isinstance(x, Tensor) or x.dim() != 4 or not x.is_floating_point() or x.numel() == 0:
        shape = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise InvalidInput(f"x: got {shape}, expected pictures (samples, channels, height, width), floating-point")
    if targets is not None and (not isinstance(targets, Tensor) or targets.shape != (len(x),)):
        raise InvalidInput(f"targets: got {targets!r}, expected class indices, a tensor of shape ({len(x)},)")
    if not 1 <= region <= max(x.shape[2:]):
        raise InvalidInput(f"region: got {region}, expected 1 to {max(x.shape[2:])} pixels")
    side = (-(-x.shape[2] // region), -(-x.shape[3] // region))
    if steps is not None and not 1 <= steps <= side[0] * side[1]:
        raise InvalidInput(f"steps: got {steps}, expected 1 to {side[0] * side[1]}, the number of regions")
    if isinstance(fill, str) and fill not in ("uniform", "mean"):
        raise InvalidInput(f"fill: got {fill!r}, expected 'uniform', 'mean' or a number")
    if random_orders < 0:
        raise InvalidInput(f"random_orders: got {random_orders}, expected at least 0")
    return side
