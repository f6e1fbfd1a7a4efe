"""Rules that treat positive and negative contributions differently: gamma, alpha-beta, z+."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from relprop.rules.base import Layer, Rule, is_number, require


def positive(w: Tensor) -> Tensor:
    """w+"""
    return w.clamp(min=0)


def negative(w: Tensor) -> Tensor:
    """w-"""
    return w.clamp(max=0)


def by_sign(layer: Layer, x: Tensor, for_positive: Tensor, for_negative: Tensor) -> Tensor:
    """x+ W1 + x- W2, with W1 for the positive and W2 for the negative inputs."""
    if layer.nonnegative:
        return layer.forward(x, for_positive)
    return layer.forward(positive(x), for_positive) + layer.forward(negative(x), for_negative)


def parts(
    layer: Layer, x: Tensor, relevance: Tensor, w1: Tensor, w2: Tensor, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor | None]:
    """W1^T s and W2^T s with s = R / (x+ W1 + x- W2 + b): v_x for the positive and for the negative inputs.

    The second is None where no input is negative.
    """
    z = by_sign(layer, x, w1, w2)
    if bias is not None:
        z += bias
    s = layer.divide(relevance, z, eps, bias)
    return layer.backward(s, w1), None if layer.nonnegative else layer.backward(s, w2)


def both(x: Tensor, *found: tuple[Tensor, Tensor | None]) -> Tensor:
    """The sum of what `parts` found, for each input by its own sign."""
    for_positive = sum(p for p, _ in found)
    if any(n is None for _, n in found):
        return cast(Tensor, for_positive)
    return torch.where(x >= 0, for_positive, sum(n for _, n in found if n is not None))


@dataclass(frozen=True)
class Gamma(Rule):
    """LRP-gamma, generalised for inputs of both signs (Montavon et al. 2019; Andeol et al. 2021).

    R_i = sum_j z'_ij / (sum_i z'_ij + b'_j) R_j with, where z_j >= 0,
    z'_ij = x+ (w + g w+) + x- (w + g w-), b' = b + g b+; where z_j < 0,
    z'_ij = x+ (w + g w-) + x- (w + g w+), b' = b + g b-.
    """

    gamma: float = 0.25
    eps: float = 1e-6

    def __post_init__(self) -> None:
        require(is_number(self.gamma) and self.gamma >= 0, "Gamma(gamma)", self.gamma, "a number >= 0")
        require(is_number(self.eps) and self.eps >= 0, "Gamma(eps)", self.eps, "a number >= 0")

    def redistribute(self, layer: Layer, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        g, b = self.gamma, layer.bias
        up = layer.prepared(f"w + {g} w+", lambda w: w + g * positive(w))
        down = layer.prepared(f"w + {g} w-", lambda w: w + g * negative(w))
        b_up, b_down = (None, None) if b is None else (b + g * positive(b), b + g * negative(b))
        relevance = z * v
        below = torch.where(z < 0, relevance, 0)
        # After a ReLU no relevance arrives where z < 0, and half of the passes can be left out.
        if not bool(below.any()):
            return both(x, parts(layer, x, relevance, up, down, b_up, self.eps))
        above = relevance.sub_(below)
        return both(
            x,
            parts(layer, x, above, up, down, b_up, self.eps),
            parts(layer, x, below, down, up, b_down, self.eps),
        )


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """LRP-alpha-beta (Bach et al. 2015, eq. 60), for inputs of both signs.

    R_i = sum_j (alpha z_ij+ / (sum_i z_ij+ + b_j+) - beta z_ij- / (sum_i z_ij- + b_j-)) R_j, alpha - beta = 1,
    z_ij+ = x+ w+ + x- w-, z_ij- = x+ w- + x- w+.
    """

    alpha: float = 2.0
    beta: float = 1.0
    eps: float = 1e-6

    def __post_init__(self) -> None:
        require(
            is_number(self.alpha, self.beta) and self.beta >= 0 and abs(self.alpha - self.beta - 1) < 1e-9,
            "AlphaBeta(alpha, beta)",
            (self.alpha, self.beta),
            "beta >= 0 and alpha - beta = 1, for example AlphaBeta(2, 1)",
        )
        require(is_number(self.eps) and self.eps >= 0, "AlphaBeta(eps)", self.eps, "a number >= 0")

    def redistribute(self, layer: Layer, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        w_plus, w_minus = layer.prepared("w+", positive), layer.prepared("w-", negative)
        b_plus, b_minus = (None, None) if layer.bias is None else (positive(layer.bias), negative(layer.bias))
        relevance = z * v
        if not self.beta:
            return both(x, parts(layer, x, relevance, w_plus, w_minus, b_plus, self.eps))
        # z- could be had as z - z+, but where hardly anything is negative that is all rounding.
        return both(
            x,
            parts(layer, x, self.alpha * relevance, w_plus, w_minus, b_plus, self.eps),
            parts(layer, x, -self.beta * relevance, w_minus, w_plus, b_minus, self.eps),
        )


@dataclass(frozen=True)
class ZPlus(AlphaBeta):
    """The z+ rule, AlphaBeta(1, 0): R_i = sum_j z_ij+ / (sum_i z_ij+ + b_j+) R_j (Montavon et al. 2017)."""

    alpha: float = field(default=1.0, init=False, repr=False)
    beta: float = field(default=0.0, init=False, repr=False)
