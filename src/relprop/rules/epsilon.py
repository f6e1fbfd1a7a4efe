"""LRP-0 and LRP-epsilon: shares proportional to the contributions z_ij = x_i w_ij."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from relprop.rules.base import Layer, Rule, is_number, require, stabiliser


@dataclass(frozen=True)
class Zero(Rule):
    """LRP-0: R_i = sum_j z_ij / z_j R_j (Bach et al. 2015, eq. 56 with eps = 0)."""

    def redistribute(self, layer: Layer, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        # R_j / z_j is v itself: nothing is divided.
        layer.note("bias", layer.bias, v)
        return layer.backward(v, layer.weight)

    def stabiliser(self) -> float:
        return 0.0


@dataclass(frozen=True)
class Epsilon(Rule):
    """LRP-epsilon: R_i = sum_j z_ij / (z_j + eps s(z_j)) R_j (Bach et al. 2015, eq. 58).

    bias="absorb": the bias and the stabiliser keep their share. bias="distribute": they are spread equally over
    the N inputs that feed the neuron, R_i = sum_j (z_ij + (b_j + eps s(z_j)) / N_j) / (z_j + eps s(z_j)) R_j, so
    that relevance is conserved exactly (Arras et al. 2017; `bias_factor=1` of its reference implementation).
    """

    eps: float = 1e-6
    bias: Literal["absorb", "distribute"] = "absorb"

    def __post_init__(self) -> None:
        require(is_number(self.eps) and self.eps >= 0, "Epsilon(eps)", self.eps, "a number >= 0")
        require(self.bias in ("absorb", "distribute"), "Epsilon(bias)", self.bias, '"absorb" or "distribute"')

    @property
    def proportional(self) -> bool:
        return self.bias == "absorb"

    def redistribute(self, layer: Layer, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        if self.bias == "absorb":
            return layer.backward(layer.stabilised(v, z, self.eps, layer.bias, spend=True), layer.weight)
        rest = stabiliser(self.eps, z)
        denominator = z + rest
        s = torch.where(denominator == 0, 0, z * v / denominator)
        if layer.bias is not None:
            rest = rest + layer.bias
        return x * layer.backward(s, layer.weight) + layer.spread(s * rest)

    def stabiliser(self) -> float:
        return self.eps
