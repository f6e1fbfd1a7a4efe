"""Rules for products in which one factor weighs the other: a gate times a signal, attention weights times values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relprop.rules.base import Rule, stabiliser

Share = float | Tensor


class ProductRule(Rule):
    """How weight * signal shares its relevance: (share of the weight, share of the signal), which add up to one."""

    # Whether the shares depend on the factors' values, element by element.
    elementwise: bool = False

    def shares(self, weight: Tensor, signal: Tensor) -> tuple[Share, Share]:
        """weight, signal: the factors, in shapes that broadcast."""
        raise NotImplementedError(f"{type(self).__name__} defines no shares(weight, signal)")


@dataclass(frozen=True)
class SignalTakesAll(ProductRule):
    """The weight counts as constant: LRP-all of Arras et al. 2019 for gates, CP-LRP (Ali et al. 2022) for attention."""

    def shares(self, weight: Tensor, signal: Tensor) -> tuple[Share, Share]:
        return 0.0, 1.0


@dataclass(frozen=True)
class Half(ProductRule):
    """Half each: LRP-half of Arras et al. 2019, the uniform rule of AttnLRP (Achtibat et al. 2024)."""

    def shares(self, weight: Tensor, signal: Tensor) -> tuple[Share, Share]:
        return 0.5, 0.5


@dataclass(frozen=True)
class Proportional(ProductRule):
    """LRP-prop of Arras et al. 2019: z_g / (z_g + z_s) and z_s / (z_g + z_s), of the factors' values."""

    eps: float = 1e-6
    elementwise = True

    def shares(self, weight: Tensor, signal: Tensor) -> tuple[Share, Share]:
        total = weight + signal
        total = total + stabiliser(self.eps, total)
        return weight / total, signal / total


@dataclass(frozen=True)
class Absolute(ProductRule):
    """LRP-abs of Arras et al. 2019: |z_g| / (|z_g| + |z_s|) and |z_s| / (|z_g| + |z_s|)."""

    eps: float = 1e-6
    elementwise = True

    def shares(self, weight: Tensor, signal: Tensor) -> tuple[Share, Share]:
        g, s = weight.abs(), signal.abs()
        total = torch.add(g, s) + self.eps
        return g / total, s / total


@dataclass(frozen=True)
class WithGates(Rule):
    """For a recurrent layer: a rule for its linear operations, and one for its gates."""

    rule: Rule
    gate: ProductRule

    @property
    def proportional(self) -> bool:
        return self.rule.proportional
