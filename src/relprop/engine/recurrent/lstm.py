"""LSTM: c_t = f c_{t-1} + i g, h_t = o tanh(c_t) (Arras et al. 2017, 2019).

h_t passes its relevance to c_t; f c_{t-1} and i g share it; g = tanh(a) passes it to a = W x_t + U h_{t-1} + b, one
linear operation on [x_t, h_{t-1}].
"""

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

CANDIDATE = 2


@dataclass(frozen=True)
class States:
    """Of all rows, (rows, d) each; a: the candidate's pre-activation."""

    a: Tensor
    i: Tensor
    f: Tensor
    g: Tensor
    o: Tensor
    c: Tensor


class LSTM:
    """Gates in torch's order: input, forget, candidate, output."""

    def states(self, d: Direction, steps: Steps, values: Values, c0: Tensor) -> States:
        gates = d.preactivations(values.x, values.h)
        a = gates.chunk(4, -1)[CANDIDATE].clone(memory_format=torch.contiguous_format)  # what follows overwrites gates
        i, f, _, o = gates.sigmoid_().chunk(4, -1)
        g = a.tanh()
        c = torch.empty_like(g)
        before = c[:0]
        for n, (ig_t, f_t, c_t) in steps.each(d.reverse, i * g, f, c):
            before = torch.addcmul(ig_t, f_t, steps.continued(before, c0, n), out=c_t)
        return States(a, i, f, g, o, c)

    def epsilon(self, layer: Layer, d: Direction, s: States, values: Values, eps: float, v: Back) -> Back:
        m = values.out if d.projection is None else s.o * s.c.tanh()
        from_h = share(m, s.c, eps, s.o)  # o tanh(c) / c, then c / (c + eps)
        from_c = share(s.c, s.c, eps)
        to_a = share(s.i * s.g, s.a, eps, s.i)  # i, then g / a, then a / (a + eps)
        of_projection = None if d.projection is None else share(values.out, values.out, eps)
        candidate, v_a = d.gates(CANDIDATE), torch.empty_like(s.c)
        packed = (v.rows, from_h, from_c, to_a, s.f, v_a, v.rows if of_projection is None else of_projection)
        for n, (v_out, h_t, c_t, a_t, f_t, v_a_t, projected) in layer.steps.each(not d.reverse, *packed):
            v_h, v_c = v.h[:n], v.c[:n]
            total = v_h + v_out
            if d.projection is not None:
                total = (total * projected) @ d.projection
            u = torch.addcmul(total.mul_(h_t), c_t, v_c)
            torch.mul(u, f_t, out=v_c)
            torch.mm(torch.mul(u, a_t, out=v_a_t), candidate.w_h, out=v_h)
        layer.note("bias", candidate.bias, v_a)
        return Back(v_a @ candidate.w_x, v.h, v.c)

    def general(self, sharing: Sharing, d: Direction, s: States, values: Values, c_before: Tensor, r: Back) -> Back:
        """Step by step, for any rules."""
        used = d if sharing.to_gates else d.gates(CANDIDATE)
        a = d.preactivations(values.x, values.h) if sharing.to_gates else s.a
        e = values.x.shape[1]
        given, tanh_c = torch.empty_like(values.x), s.c.tanh()
        for rows, n in sharing.layer.steps.backward(d.reverse):
            r_h = r.h[:n] + r.rows[rows]
            i, f, g, o, c, before = (t[rows] for t in (s.i, s.f, s.g, s.o, s.c, c_before))
            if d.projection is not None:
                r_h = sharing.affine(r_h, values.out[rows], o * tanh_c[rows], d.projection, None)[1]
            r_o, r_c = sharing.product(r_h, o, tanh_c[rows])
            r_fc, r_ig = sharing.sum(r_c + r.c[:n], c, f * before, i * g)
            r_f, r.c[:n] = sharing.product(r_fc, f, before)
            r_i, r_g = sharing.product(r_ig, i, g)
            r_a = torch.cat([r_i, r_f, r_g, r_o], -1) if sharing.to_gates else r_g
            xh = torch.cat([values.x[rows], values.h[rows]], -1)
            out, r_xh = sharing.affine(r_a, a[rows], xh, used.joint, used.bias)
            given[rows], r.h[:n] = out[:, :e], r_xh[:, e:]
        return Back(given, r.h, r.c)
