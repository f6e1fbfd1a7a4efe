"""One direction of a recurrent layer: its parameters, its values, and what comes back through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from relprop.rules.base import stabiliser


@dataclass(frozen=True)
class Direction:
    """The parameters of one direction of a layer; those of all gates are stacked along the first axis.

    w_x (gates * d, e), w_h (gates * d, p), b_x and b_h (gates * d,) or None, projection (p, d) or None.
    """

    w_x: Tensor
    w_h: Tensor
    b_x: Tensor | None
    b_h: Tensor | None
    projection: Tensor | None
    reverse: bool

    def to(self, dtype: torch.dtype) -> Direction:
        return self._changed(lambda t: t.detach().to(dtype), self.projection is not None)

    def gates(self, *which: int) -> Direction:
        """The parameters of these gates alone, stacked in this order."""
        size = self.w_h.shape[1] if self.projection is None else self.projection.shape[1]
        return self._changed(lambda t: torch.cat([t[gate * size : (gate + 1) * size] for gate in which]), False)

    def _changed(self, change: Callable[[Tensor], Tensor], projection: bool) -> Direction:
        names = ("w_x", "w_h", "b_x", "b_h", "projection") if projection else ("w_x", "w_h", "b_x", "b_h")
        changed: dict[str, Any] = {n: change(t) for n in names if (t := getattr(self, n)) is not None}
        return replace(self, **changed)

    @cached_property
    def joint(self) -> Tensor:
        """[W, U], the weights on [x, h]."""
        return torch.cat([self.w_x, self.w_h], 1)

    @cached_property
    def bias(self) -> Tensor | None:
        return None if self.b_x is None or self.b_h is None else self.b_x + self.b_h

    def preactivations(self, x: Tensor, h: Tensor) -> Tensor:
        """W x + U h + b of all rows, by two matrix products."""
        a = x @ self.w_x.T if self.bias is None else torch.addmm(self.bias, x, self.w_x.T)
        return a.addmm_(h, self.w_h.T)


@dataclass(frozen=True)
class Values:
    """x (rows, e), the states before each row h (rows, p), the outputs out (rows, p)."""

    x: Tensor
    h: Tensor
    out: Tensor


@dataclass
class Back:
    """What comes in at one direction's outputs, or goes out at its inputs.

    rows: at all outputs, (rows, p), or inputs, (rows, e). h (batch, p) and c (batch, d): coming in, zero and what
    arrives at the last cell states; going out, what is sent to the initial states.
    """

    rows: Tensor
    h: Tensor
    c: Tensor


def share(part: Tensor, whole: Tensor, eps: float, limit: Tensor | float = 1.0) -> Tensor:
    """part / (whole + eps s(whole)); without eps, where the whole is zero, the limit."""
    if eps:
        denominator = stabiliser(eps, whole).add_(whole)
        return torch.div(part, denominator, out=denominator)
    return torch.where(whole == 0, limit, part / whole)
