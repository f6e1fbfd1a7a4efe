"""How any rules share relevance inside a recurrent cell, one time step at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from relprop.asking import decided
from relprop.engine.affine import Affine
from relprop.engine.linear_map import LinearMap, Matrix
from relprop.engine.operation import Kept
from relprop.engine.recurrent.direction import share
from relprop.errors import InvalidRule
from relprop.rules import Epsilon, ProductRule, Rule, SignalTakesAll, Zero

if TYPE_CHECKING:
    from relprop.engine.recurrent.layer import Layer

# What stands for a sum that is exactly zero, where R / sum would lose R: the sign of zero counts as positive.
_ALMOST_ZERO = {torch.float32: 1e-25, torch.float64: 1e-200}


class _Step(Affine):
    """The linear operation of one time step; the last `extra` columns of its input are no units below it."""

    extra = 0

    def ones(self) -> Tensor:
        ones = torch.ones_like(self.x.value)
        ones[:, ones.shape[1] - self.extra :] = 0
        return ones


@dataclass(frozen=True)
class Sharing:
    """A rule for the linear operations and one for the products of a recurrent layer; its sums take the rule's eps."""

    layer: Layer
    rule: Rule
    gate: ProductRule

    @property
    def to_gates(self) -> bool:
        return self.gate != SignalTakesAll()

    @property
    def eps(self) -> float:
        return self.rule.stabiliser() if isinstance(self.rule, (Zero, Epsilon)) else 0.0

    def sum(self, relevance: Tensor, whole: Tensor, *parts: Tensor) -> list[Tensor]:
        """R part / (whole + eps s(whole)) for each part. bias="distribute": each unit's stabiliser is spread equally
        over all units of all parts."""
        s = share(relevance, whole, self.eps, 0.0)
        rest: Tensor | float = 0.0
        if not self.rule.proportional and self.eps:
            spread = torch.copysign(s * self.eps, s * whole)
            rest = spread.sum(-1, keepdim=True) / (len(parts) * whole.shape[-1])
        return [part * s + rest for part in parts]

    def shares(self, gate: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        """(share of the gate, share of the signal) in their product, shaped like them."""
        of_gate, of_signal = self.gate.shares(gate, signal)
        return torch.as_tensor(of_gate).to(gate).expand_as(gate), torch.as_tensor(of_signal).to(gate).expand_as(signal)

    def require_signs(self, of_signal: Tensor) -> None:
        """Refuse a rule that tells positive from negative weights where a share below zero would exchange them."""
        if isinstance(self.rule, (Zero, Epsilon)):
            return
        if self.gate.elementwise:
            below = decided(
                (of_signal < 0).any(), f"{self.gate} may give a share below zero, which {self.rule} refuses"
            )
        else:
            below = float(self.gate.shares(of_signal, of_signal)[1]) < 0
        if below:
            raise InvalidRule(
                f"{self.gate} gave a share below zero at {self.layer.op.where}, with which {self.rule} can't tell "
                "positive from negative contributions. Use Epsilon() there, or Half() or Absolute() for the gates"
            )

    def product(self, relevance: Tensor, gate: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        """(R of the gate, R of the signal)."""
        of_gate, of_signal = self.gate.shares(gate, signal)
        return relevance * of_gate, relevance * of_signal

    def affine(
        self,
        relevance: Tensor,
        a: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        linear: LinearMap | None = None,
        *,
        extra: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """(what the rule gives at x, v or R; R at x) for a = W x + b. extra: see _Step."""
        layer = self.layer
        step = _Step(layer.op, layer.trace, Matrix() if linear is None else linear, x, weight, None, bias, Kept(x))
        step.extra = extra
        a = torch.where(a == 0, _ALMOST_ZERO[a.dtype], a)
        given = self.rule.redistribute(step, x, a, relevance / a)
        return given, given * x if self.rule.proportional else given
