"""Rules that treat positive and negative contributions differently: gamma, alpha-beta, z+."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from relprop.rules.base import Layer, Rule, in_pieces, is_number, require


def positive(w: Tensor) -> Tensor:
    """w+"""
    return w.clamp(min=0)


def negative(w: Tensor) -> Tensor:
    """w-"""
    return w.clamp(max=0)


def z_by_sign(layer: Layer, x: Tensor, w1: Tensor, w2: Tensor, bias: Tensor | None) -> Tensor:
    """x+ W1 + x- W2 + b, with W1 for the positive and W2 for the negative inputs."""
    if layer.nonnegative:
        return layer.forward(x, w1, bias)
    return layer.forward_sum((positive(x), negative(x)), (w1, w2), bias)


def v_by_sign(layer: Layer, x: Tensor, s: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """W1^T s for the positive and W2^T s for the negative inputs."""
    if layer.nonnegative:
        return layer.backward(s, w1)
    for_positive, for_negative = layer.backward_each(s, w1, w2)
    return torch.where(x >= 0, for_positive, for_negative)


def plus(bias: Tensor | None, eps: float, z: Tensor) -> Tensor:
    """b + eps"""
    return z.new_tensor(eps) if bias is None else bias + eps


# Beyond this gamma, differences of w and h |w| would lose more than two digits.
_LARGE = 100.0


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
        if layer.nonnegative and layer.rectified:
            return self._above(layer, x, z, v)
        # Divided by 1 + g / 2, both cases are z'_ij = z_ij + h s(z_j) |z_ij| with h = g / (2 + g).
        h, b, eps = self.gamma / (2 + self.gamma), layer.bias, 2 * self.eps / (2 + self.gamma)
        w_h = layer.prepared(f"{h} |w|", lambda w: w.abs().mul_(h))
        b_h = None if b is None else b.abs() * h
        d = layer.forward(x if layer.nonnegative else x.abs(), w_h, plus(b_h, eps, z))
        in_pieces(lambda d, z: d.copysign_(z).add_(z), d, z)
        s = layer.share(v, z, d, eps, None if b is None else b + torch.copysign(cast(Tensor, b_h), z))
        if self.gamma > _LARGE:
            return self._apart(layer, x, z, s)
        v_x = layer.backward(s, layer.weight)
        in_pieces(lambda s, z: s.mul_(z.sign()), s, z)
        of_h = layer.backward(s, w_h)
        return v_x.add_(of_h if layer.nonnegative else torch.where(x >= 0, of_h, -of_h))

    def _apart(self, layer: Layer, x: Tensor, z: Tensor, s: Tensor) -> Tensor:
        """The last step with weights for each sign, where w and h |w| would cancel to the last digits."""
        g = self.gamma
        up = layer.prepared(f"up {g}", lambda w: (w + g * positive(w)).div_(1 + g / 2))
        down = layer.prepared(f"down {g}", lambda w: (w + g * negative(w)).div_(1 + g / 2))
        above = torch.where(z >= 0, s, 0)
        return v_by_sign(layer, x, above, up, down).add_(v_by_sign(layer, x, s - above, down, up))

    def _above(self, layer: Layer, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        """Where no input is negative, and no relevance arrives where z_j < 0."""
        g, b = self.gamma, layer.bias
        up = layer.prepared(f"w + {g} w+", lambda w: positive(w).mul_(g).add_(w))
        b_up = None if b is None else b + g * positive(b)
        d = layer.forward(x, up, plus(b_up, self.eps, z)).clamp_(min=self.eps)
        return layer.backward(layer.share(v, z, d, self.eps, b_up), up)


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
        eps = self.eps
        if not self.beta:
            d = z_by_sign(layer, x, w_plus, w_minus, plus(b_plus, eps, z))
            return v_by_sign(layer, x, layer.share(v, z, d, eps, b_plus), w_plus, w_minus)
        below = z_by_sign(layer, x, w_minus, w_plus, plus(b_minus, -eps, z))
        if layer.rectified:
            # z is the sum of both. Where relevance is z > 0, and z - z- a sum of positive numbers; where it is not,
            # the other way round it would be rounding that is left.
            s_above, s_below = layer.share_apart(v, z, below, eps, (b_plus, b_minus), (self.alpha, -self.beta))
        else:
            above = z_by_sign(layer, x, w_plus, w_minus, plus(b_plus, eps, z))
            s_above = layer.share(v, z, above, eps, b_plus, self.alpha)
            s_below = layer.share(v, z, below, eps, b_minus, -self.beta)
        v_x = v_by_sign(layer, x, s_above, w_plus, w_minus)
        return v_x.add_(v_by_sign(layer, x, s_below, w_minus, w_plus))


@dataclass(frozen=True)
class ZPlus(AlphaBeta):
    """The z+ rule, AlphaBeta(1, 0): R_i = sum_j z_ij+ / (sum_i z_ij+ + b_j+) R_j (Montavon et al. 2017)."""

    alpha: float = field(default=1.0, init=False, repr=False)
    beta: float = field(default=0.0, init=False, repr=False)
