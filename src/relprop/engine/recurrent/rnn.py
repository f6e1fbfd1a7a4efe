"""Elman networks: h_t = f(a), a = W x_t + U h_{t-1} + b one linear operation on [x_t, h_{t-1}]; f is tanh or ReLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from relprop.engine.recurrent.direction import Back, Direction, Values, share
from relprop.engine.recurrent.sharing import Sharing
from relprop.engine.recurrent.steps import Steps

if TYPE_CHECKING:
    from relprop.engine.recurrent.layer import Layer


@dataclass(frozen=True)
class States:
    """a: the pre-activations, (rows, d)."""

    a: Tensor
    c: Tensor


@dataclass(frozen=True)
class RNN:
    """slope: f(a) / a where a is zero."""

    slope: float

    def states(self, d: Direction, steps: Steps, values: Values, c0: Tensor) -> States:
        return States(d.preactivations(values.x, values.h), values.h[:, :0])

    def epsilon(self, layer: Layer, d: Direction, s: States, values: Values, eps: float, v: Back) -> Back:
        to_a = share(values.out, s.a, eps, self.slope)
        v_a = torch.empty_like(s.a)
        for n, (v_out, a_t, v_a_t) in layer.steps.each(not d.reverse, v.rows, to_a, v_a):
            v_h = v.h[:n]
            torch.mm(torch.mul(v_h + v_out, a_t, out=v_a_t), d.w_h, out=v_h)
        layer.note("bias", d.bias, v_a)
        return Back(v_a @ d.w_x, v.h, v.c)

    def general(self, sharing: Sharing, d: Direction, s: States, values: Values, c_before: Tensor, r: Back) -> Back:
        """Step by step, for any rules."""
        e = values.x.shape[1]
        given = torch.empty_like(values.x)
        for rows, n in sharing.layer.steps.backward(d.reverse):
            xh = torch.cat([values.x[rows], values.h[rows]], -1)
            out, r_xh = sharing.affine(r.h[:n] + r.rows[rows], s.a[rows], xh, d.joint, d.bias)
            given[rows], r.h[:n] = out[:, :e], r_xh[:, e:]
        return Back(given, r.h, r.c)
