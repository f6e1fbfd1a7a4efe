"""One direction of a recurrent layer: its parameters, its values, and what comes back through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from relprop.engine.recurrent.steps import Span, Steps
from relprop.rules.base import stabiliser

# How many values of each kind a span of time steps has (or those of one step): work on it stays in the cache.
SPAN = 1 << 18


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
    _gates: dict[tuple[int, int], Direction] = field(default_factory=dict, compare=False)

    def to(self, dtype: torch.dtype) -> Direction:
        return self._changed(lambda t: t.detach().to(dtype), self.projection is not None)

    def gates(self, first: int, count: int = 1) -> Direction:
        """The parameters of these gates alone, stacked in this order."""
        if (first, count) not in self._gates:
            size = self.w_h.shape[1] if self.projection is None else self.projection.shape[1]
            rows = slice(first * size, (first + count) * size)
            self._gates[first, count] = self._changed(lambda t: t[rows], False)
        return self._gates[first, count]

    def _changed(self, change: Callable[[Tensor], Tensor], projection: bool) -> Direction:
        names = ("w_x", "w_h", "b_x", "b_h", "projection") if projection else ("w_x", "w_h", "b_x", "b_h")
        changed: dict[str, Any] = {n: change(t) for n in names if (t := getattr(self, n)) is not None}
        return replace(self, **changed, _gates={})

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


@dataclass(frozen=True)
class Passage:
    """One direction's way through time: x (steps, batch, e) or, packed, (rows, e); initial states h0 (batch, p) and
    c0 (batch, d), the outputs out (rows, p)."""

    d: Direction
    steps: Steps
    x: Tensor
    h0: Tensor
    c0: Tensor
    out: Tensor

    def spans(self, *, descending: bool) -> list[Span]:
        """All time steps in spans that fit in the cache, in the layer's own order or from its last step."""
        spans = self.steps.spans(SPAN // self.d.gates(0).w_h.shape[0])
        return spans[::-1] if descending != self.d.reverse else spans

    def values(self, span: Span) -> Values:
        """The values of these time steps, in the dtype of the parameters."""
        dtype, starts = self.d.w_x.dtype, self.steps.starts
        before = span.first + len(span.steps.sizes) if self.d.reverse else span.first - 1
        known = self.out[starts[before] : starts[before + 1]] if 0 <= before < len(self.steps.sizes) else self.out[:0]
        initial = self.steps.continued(known.to(dtype), self.h0, span.steps.batch)
        out = self.out[span.rows].to(dtype)
        return Values(span.of(self.x).to(dtype), span.steps.previous(out, initial, self.d.reverse), out)


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
