"""Rules for the first layer, where inputs may be zero and still matter: ZBox, WSquare, Flat; and Pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relprop.errors import InvalidRule
from relprop.rules.base import Layer, Rule, require
from relprop.rules.signed import negative, positive


@dataclass(frozen=True)
class _Direct(Rule):
    """A rule that hands out relevance itself, also to inputs that are zero."""

    @property
    def proportional(self) -> bool:
        return False


@dataclass(frozen=True, eq=False)
class ZBox(_Direct):
    """z^B rule for inputs in a box l <= x <= h, such as pixels (Montavon et al. 2017, eq. 20).

    R_i = sum_j (x_i w_ij - l_i w_ij+ - h_i w_ij-) / (sum_i of the same) R_j, without bias.
    `low`, `high`: numbers, or tensors that broadcast against one sample (per channel: (C, 1, 1)).
    """

    low: float | Tensor
    high: float | Tensor
    eps: float = 1e-6

    def __post_init__(self) -> None:
        low, high = torch.as_tensor(self.low), torch.as_tensor(self.high)
        require(bool((low < high).all()), "ZBox(low, high)", (self.low, self.high), "low < high")
        require(self.eps >= 0, "ZBox(eps)", self.eps, "a number >= 0")

    def redistribute(self, layer: Layer, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        low, high = layer.box(self.low, self.high)
        w_plus, w_minus = layer.prepared("w+", positive), layer.prepared("w-", negative)
        corners = layer.forward_sum((low, high), (w_plus, w_minus), layer.bias)
        s = layer.divide(z * v, z - corners, self.eps)
        of_x, of_low, of_high = layer.backward_each(s, layer.weight, w_plus, w_minus)
        return x * of_x - low * of_low - high * of_high


@dataclass(frozen=True)
class WSquare(_Direct):
    """w^2 rule for real-valued inputs: R_i = sum_j w_ij^2 / sum_i w_ij^2 R_j (Montavon et al. 2017, eq. 16).

    bias=True counts b_j^2 in the denominator too.
    """

    bias: bool = False
    eps: float = 1e-6

    def redistribute(self, layer: Layer, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        squared = layer.prepared("w^2", torch.square)
        inputs = layer.ones()
        total = layer.forward(inputs, squared)
        b2 = layer.bias.square() if self.bias and layer.bias is not None else None
        if b2 is not None:
            total = total + b2
        return inputs * layer.backward(layer.divide(z * v, total.expand_as(z), self.eps, b2), squared)


@dataclass(frozen=True)
class Flat(_Direct):
    """Flat rule: every connected input gets the same share, 1 / their number (Lapuschkin et al. 2019).

    Only real inputs count: no padding, be it the convolution's own or one made before it.
    """

    eps: float = 1e-6

    def redistribute(self, layer: Layer, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        return layer.spread(z * v, self.eps)


@dataclass(frozen=True)
class Pass(_Direct):
    """R_i = R_i: relevance passes an operation of equal input and output shape unchanged."""

    def redistribute(self, layer: Layer, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        if x.shape != z.shape:
            raise InvalidRule(
                f"Pass() needs an operation whose output has its input's shape, met {tuple(x.shape)} -> "
                f"{tuple(z.shape)}; choose another rule there, for example Epsilon()"
            )
        return z * v
