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
    """a: the pre-activations of all gates, (rows, 4 d); the others (rows, d)."""

    a: Tensor
    i: Tensor
    f: Tensor
    g: Tensor
    o: Tensor
    c: Tensor
    tanh_c: Tensor


class LSTM:
    """Gates in torch's order: input, forget, candidate, output."""

    gates = 4

    def states(self, d: Direction, steps: Steps, values: Values, c0: Tensor) -> States:
        a = d.preactivations(values.x, values.h)
        i, f, g, o = a.chunk(4, -1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        c, before, ig = torch.empty_like(g), c0.clone(), i * g
        for rows, n in steps.forward(d.reverse):
            torch.addcmul(ig[rows], f[rows], before[:n], out=c[rows])
            before[:n] = c[rows]
        return States(a, i, f, g, o, c, c.tanh())

    def epsilon(self, layer: Layer, d: Direction, s: States, values: Values, eps: float, v: Back) -> Back:
        a = s.a.chunk(4, -1)[CANDIDATE]
        from_h = share(s.o * s.tanh_c, s.c, eps, s.o)  # o tanh(c) / c, then c / (c + eps)
        from_c = share(s.c, s.c, eps)
        to_a = share(s.i * s.g, a, eps, s.i)  # i, then g / a, then a / (a + eps)
        of_projection = share(values.out, values.out, eps)
        candidate = d.gates(CANDIDATE)
        v_a = torch.empty_like(a)
        for rows, n in layer.steps.backward(d.reverse):
            v_h, v_c = v.h[:n] + v.rows[rows], v.c[:n]
            if d.projection is not None:
                v_h = (v_h * of_projection[rows]) @ d.projection
            u = torch.addcmul(from_h[rows] * v_h, from_c[rows], v_c)
            torch.mul(u, to_a[rows], out=v_a[rows])
            torch.mul(u, s.f[rows], out=v_c)
            torch.mm(v_a[rows], candidate.w_h, out=v.h[:n])
        layer.note("bias", candidate.bias, v_a)
        return Back(v_a @ candidate.w_x, v.h, v.c)

    def general(self, sharing: Sharing, d: Direction, s: States, values: Values, c_before: Tensor, r: Back) -> Back:
        """Step by step, for any rules."""
        used = d if sharing.to_gates else d.gates(CANDIDATE)
        a = s.a if sharing.to_gates else s.a.chunk(4, -1)[CANDIDATE]
        e = values.x.shape[1]
        given = torch.empty_like(values.x)
        for rows, n in sharing.layer.steps.backward(d.reverse):
            r_h = r.h[:n] + r.rows[rows]
            i, f, g, o, c, before = (t[rows] for t in (s.i, s.f, s.g, s.o, s.c, c_before))
            if d.projection is not None:
                r_h = sharing.affine(r_h, values.out[rows], o * s.tanh_c[rows], d.projection, None)[1]
            r_o, r_c = sharing.product(r_h, o, s.tanh_c[rows])
            r_fc, r_ig = sharing.sum(r_c + r.c[:n], c, f * before, i * g)
            r_f, r.c[:n] = sharing.product(r_fc, f, before)
            r_i, r_g = sharing.product(r_ig, i, g)
            r_a = torch.cat([r_i, r_f, r_g, r_o], -1) if sharing.to_gates else r_g
            xh = torch.cat([values.x[rows], values.h[rows]], -1)
            out, r_xh = sharing.affine(r_a, a[rows], xh, used.joint, used.bias)
            given[rows], r.h[:n] = out[:, :e], r_xh[:, e:]
        return Back(given, r.h, r.c)
