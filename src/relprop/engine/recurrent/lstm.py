"""LSTM: c_t = f c_{t-1} + i g, h_t = o tanh(c_t) (Arras et al. 2017, 2019).

h_t passes its relevance to c_t; f c_{t-1} and i g share it; g = tanh(a) passes it to a = W x_t + U h_{t-1} + b, one
linear operation on [x_t, h_{t-1}].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from relprop.engine.recurrent.direction import Back, Direction, Passage, Values, share
from relprop.engine.recurrent.sharing import Sharing
from relprop.engine.recurrent.steps import Span, Steps

if TYPE_CHECKING:
    from relprop.engine.recurrent.layer import Layer

INPUT, FORGET, CANDIDATE, OUTPUT = 0, 1, 2, 3


@dataclass(frozen=True)
class States:
    """Of all rows, (rows, d) each; a: the candidate's pre-activation."""

    a: Tensor
    i: Tensor
    f: Tensor
    g: Tensor
    c: Tensor


@dataclass(frozen=True)
class Factors:
    """What v is multiplied by on its way, (rows, d) each: from h to c, and onward (2, rows, d) from c to the cell state
    before it and to a. Where h is a projection, from its value to itself (rows, p), else None."""

    span: Span
    from_h: Tensor
    onward: Tensor
    projected: Tensor | None


class LSTM:
    """Gates in torch's order: input, forget, candidate, output."""

    candidate = CANDIDATE

    def states(self, d: Direction, steps: Steps, values: Values, c0: Tensor) -> States:
        i, f, a = (d.gates(k).preactivations(values.x, values.h) for k in (INPUT, FORGET, CANDIDATE))
        i, f, g = i.sigmoid_(), f.sigmoid_(), a.tanh()
        c = i * g
        before, size = c0[:0], 0
        for n, f_t, c_t in zip(
            steps.ordered(d.reverse), steps.each(f, d.reverse), steps.each(c, d.reverse), strict=True
        ):
            if n != size:
                before, size = steps.continued(before, c0, n), n
            before = torch.addcmul(c_t, f_t, before, out=c_t)
        return States(a, i, f, g, c)

    def factors(self, way: Passage, eps: float) -> Iterator[Factors]:
        d, made = way.d, []
        c, of_c = way.c0[:0], way.c0[:0]
        for span in way.spans(descending=False):
            steps, values = span.steps, way.values(span)
            s = self.states(d, steps, values, steps.continued(c, way.c0, steps.batch))
            onward = torch.empty((2, *s.c.shape), dtype=s.c.dtype, device=s.c.device)
            stabilised = share(s.c, s.c, eps)
            before = steps.continued(of_c, torch.ones_like(way.c0), steps.batch)
            torch.mul(s.f, steps.previous(stabilised, before, d.reverse), out=onward[0])
            onward[1] = share(s.g.mul_(s.i), s.a, eps, s.i)  # i, then g / a, then a / (a + eps)
            made.append(Factors(span, self._from_h(d, s, values, eps), onward, self._projected(d, values, eps)))
            c, of_c = (steps.last(t, d.reverse) for t in (s.c, stabilised))
        return reversed(made)

    def through(self, layer: Layer, d: Direction, to: Factors, v_out: Tensor, arriving: Tensor) -> Tensor:
        candidate, steps, projection = d.gates(CANDIDATE), to.span.steps, d.projection
        u, total = torch.empty_like(to.from_h), v_out.new_empty((steps.batch, v_out.shape[1]))
        descending, size = not d.reverse, 0
        packed = (v_out, to.from_h, to.onward, u, v_out if to.projected is None else to.projected)
        each = (steps.each(t, descending) for t in packed)
        for n, v_t, h_t, onward_t, u_t, projected in zip(steps.ordered(descending), *each, strict=True):
            if n != size:
                here, v_h, size = arriving[:, :n], total[:n], n
                v_c, v_a = here.unbind(0)
            torch.addmm(v_t, v_a, candidate.w_h, out=v_h)
            arrived = v_h if projection is None else (v_h * projected) @ projection
            torch.addcmul(v_c, h_t, arrived, out=u_t)
            torch.mul(onward_t, u_t, out=here)
        v_a = u.mul_(to.onward[1])
        layer.note("bias", candidate.bias, v_a)
        return v_a

    def initial(self, d: Direction, arriving: Tensor) -> tuple[Tensor, Tensor]:
        return arriving[1] @ d.gates(CANDIDATE).w_h, arriving[0]

    def _from_h(self, d: Direction, s: States, values: Values, eps: float) -> Tensor:
        """o tanh(c) / c, then c / (c + eps)."""
        if eps and d.projection is None:
            return share(values.out, s.c, eps)
        o = self._output(d, values)
        return share(o * s.c.tanh(), s.c, eps, o)

    def _output(self, d: Direction, values: Values) -> Tensor:
        return d.gates(OUTPUT).preactivations(values.x, values.h).sigmoid_()

    def _projected(self, d: Direction, values: Values, eps: float) -> Tensor | None:
        return None if d.projection is None else share(values.out, values.out, eps)

    def general(self, sharing: Sharing, d: Direction, s: States, values: Values, c_before: Tensor, r: Back) -> Back:
        """Step by step, for any rules."""
        used = d if sharing.to_gates else d.gates(CANDIDATE)
        a = d.preactivations(values.x, values.h) if sharing.to_gates else s.a
        e = values.x.shape[1]
        given, tanh_c, output = torch.empty_like(values.x), s.c.tanh(), self._output(d, values)
        for rows, n in sharing.layer.steps.backward(d.reverse):
            r_h = r.h[:n] + r.rows[rows]
            i, f, g, o, c, before = (t[rows] for t in (s.i, s.f, s.g, output, s.c, c_before))
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
