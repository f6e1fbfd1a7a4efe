"""Elman networks: h_t = f(a), a = W x_t + U h_{t-1} + b one linear operation on [x_t, h_{t-1}]; f is tanh or ReLU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from relprop.engine.recurrent.direction import Back, Direction, Passage, Values, share
from relprop.engine.recurrent.sharing import Sharing
from relprop.engine.recurrent.steps import Span, Steps

if TYPE_CHECKING:
    from relprop.engine.recurrent.layer import Layer


@dataclass(frozen=True)
class States:
    """a: the pre-activations, (rows, d)."""

    a: Tensor
    c: Tensor


@dataclass(frozen=True)
class Factors:
    """What v at h is multiplied by on its way to a, (rows, d)."""

    span: Span
    to_a: Tensor


@dataclass(frozen=True)
class RNN:
    """slope: f(a) / a where a is zero."""

    slope: float
    candidate: ClassVar[int] = 0

    def states(self, d: Direction, steps: Steps, values: Values, c0: Tensor) -> States:
        return States(d.preactivations(values.x, values.h), values.h[:, :0])

    def factors(self, way: Passage, eps: float) -> Iterator[Factors]:
        for span in way.spans(descending=True):
            values = way.values(span)
            # Where ReLU lets a through, its output is a; elsewhere it is zero, and so is the slope.
            a = way.d.preactivations(values.x, values.h) if self.slope else values.out
            yield Factors(span, share(values.out, a, eps, self.slope))

    def through(self, layer: Layer, d: Direction, to: Factors, v_out: Tensor, arriving: Tensor) -> Tensor:
        steps, descending, size = to.span.steps, not d.reverse, 0
        u = torch.empty_like(to.to_a)
        each = (steps.each(t, descending) for t in (v_out, to.to_a, u))
        for n, v_t, a_t, u_t in zip(steps.ordered(descending), *each, strict=True):
            if n != size:
                v_a, size = arriving[1, :n], n
            torch.addmm(v_t, v_a, d.w_h, out=u_t)
            torch.mul(a_t, u_t, out=v_a)
        v_a = u.mul_(to.to_a)
        layer.note("bias", d.bias, v_a)
        return v_a

    def initial(self, d: Direction, arriving: Tensor) -> tuple[Tensor, Tensor]:
        return arriving[1] @ d.w_h, arriving[0, :, :0]

    def general(self, sharing: Sharing, d: Direction, s: States, values: Values, c_before: Tensor, r: Back) -> Back:
        """Step by step, for any rules."""
        e = values.x.shape[1]
        given = torch.empty_like(values.x)
        for rows, n in sharing.layer.steps.backward(d.reverse):
            xh = torch.cat([values.x[rows], values.h[rows]], -1)
            out, r_xh = sharing.affine(r.h[:n] + r.rows[rows], s.a[rows], xh, d.joint, d.bias)
            given[rows], r.h[:n] = out[:, :e], r_xh[:, e:]
        return Back(given, r.h, r.c)
