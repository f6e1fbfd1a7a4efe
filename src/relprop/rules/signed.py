"""Rules that treat positive and negative contributions differently: gamma, alpha-beta, z+."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from relprop.rules.base import Layer, Rule, require


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
        require(self.gamma >= 0, "Gamma(gamma)", self.gamma, "a number >= 0")
        require(self.eps >= 0, "Gamma(eps)", self.eps, "a number >= 0")

    def redistribute(self, layer: Layer, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        g = self.gamma
        up = layer.prepared(f"w + {g} w+", lambda w: w + g * positive(w))
        down = layer.prepared(f"w + {g} w-", lambda w: w + g * negative(w))
        relevance = z * v
        below = z < 0
        for_positive, for_negative = self._parts(layer, x, relevance.masked_fill(below, 0), up, down, positive)
        # After a ReLU no relevance arrives where z < 0, and half of the passes can be left out.
        if bool((relevance * below).any()):
            p, n = self._parts(layer, x, relevance.masked_fill(~below, 0), down, up, negative)
            for_positive = for_positive + p
            for_negative = None if for_negative is None or n is None else for_negative + n
        return for_positive if for_negative is None else torch.where(x >= 0, for_positive, for_negative)

    def _parts(
        self, layer: Layer, x: Tensor, relevance: Tensor, w1: Tensor, w2: Tensor, part: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """v_x for the positive inputs (weights w1) and the negative ones (w2; None where there are none)."""
        z = by_sign(layer, x, w1, w2)
        bias = None
        if layer.bias is not None:
            bias = layer.bias + self.gamma * part(layer.bias)
            z = z + bias
        s = layer.divide(relevance, z, self.eps, bias)
        return layer.backward(s, w1), None if layer.nonnegative else layer.backward(s, w2)


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
            self.beta >= 0 and abs(self.alpha - self.beta - 1) < 1e-9,
            "AlphaBeta(alpha, beta)",
            (self.alpha, self.beta),
            "beta >= 0 and alpha - beta = 1, for example AlphaBeta(2, 1)",
        )
        require(self.eps >= 0, "AlphaBeta(eps)", self.eps, "a number >= 0")

    def redistribute(self, layer: Layer, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        w_plus, w_minus = layer.prepared("w+", positive), layer.prepared("w-", negative)
        bias = layer.bias
        relevance = z * v
        z_plus = by_sign(layer, x, w_plus, w_minus)
        if bias is not None:
            z_plus = z_plus + positive(bias)
        s = layer.divide(self.alpha * relevance, z_plus, self.eps, None if bias is None else positive(bias))
        for_positive = layer.backward(s, w_plus)
        for_negative = None if layer.nonnegative else layer.backward(s, w_minus)
        if self.beta:
            # z = z+ + z-, so the negative part costs no pass of its own.
            z_minus = negative(z - z_plus)
            s = layer.divide(-self.beta * relevance, z_minus, self.eps, None if bias is None else negative(bias))
            for_positive = for_positive + layer.backward(s, w_minus)
            for_negative = None if for_negative is None else for_negative + layer.backward(s, w_plus)
        return for_positive if for_negative is None else torch.where(x >= 0, for_positive, for_negative)


@dataclass(frozen=True)
class ZPlus(AlphaBeta):
    """The z+ rule, AlphaBeta(1, 0): R_i = sum_j z_ij+ / (sum_i z_ij+ + b_j+) R_j (Montavon et al. 2017)."""

    alpha: float = field(default=1.0, init=False, repr=False)
    beta: float = field(default=0.0, init=False, repr=False)
