"""GRU: h_t = (1 - z) n + z h_{t-1}, n = tanh(W x_t + b + r (U h_{t-1} + b')).

n and h_{t-1} share the relevance of h_t; n passes it to its pre-activation, one linear operation on [x_t, h_{t-1}] in
which the gate r scales the recurrent weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.asking import unrecorded
from relprop.engine.linear_map import Gated
from relprop.engine.recurrent.direction import Back, Direction, Passage, Values, share
from relprop.engine.recurrent.sharing import Sharing
from relprop.engine.recurrent.steps import Span, Steps

if TYPE_CHECKING:
    from relprop.engine.recurrent.layer import Layer

RESET, UPDATE, CANDIDATE = 0, 1, 2


@dataclass(frozen=True)
class States:
    """Of all rows, (rows, d) each; a_h = U h + b', a the pre-activation of n."""

    r: Tensor
    z: Tensor
    a_h: Tensor
    a: Tensor
    n: Tensor
    c: Tensor


@dataclass(frozen=True)
class Factors:
    """What v at h is multiplied by on its way to a (rows, d), and onward (2, rows, d) to the state before it: past n,
    and through r from a."""

    span: Span
    to_a: Tensor
    onward: Tensor


class GRU:
    """Gates in torch's order: reset, update, candidate."""

    candidate = CANDIDATE

    def states(self, d: Direction, steps: Steps, values: Values, c0: Tensor) -> States:
        r, z = (d.gates(k).preactivations(values.x, values.h).sigmoid_() for k in (RESET, UPDATE))
        candidate = d.gates(CANDIDATE)
        a_h = F.linear(values.h, candidate.w_h, candidate.b_h)
        a = F.linear(values.x, candidate.w_x, candidate.b_x).addcmul_(r, a_h)
        return States(r, z, a_h, a, a.tanh(), values.h[:, :0])

    def factors(self, way: Passage, eps: float) -> Iterator[Factors]:
        for span in way.spans(descending=True):
            values = way.values(span)
            s = self.states(way.d, span.steps, values, way.c0)
            onward = torch.empty((2, *s.a.shape), dtype=s.a.dtype, device=s.a.device)
            from_h = share(values.out, values.out, eps)
            before = torch.mul(from_h, s.z, out=onward[0])
            to_a = from_h.sub_(before).mul_(share(s.n, s.a, eps))
            torch.mul(to_a, s.r, out=onward[1])
            yield Factors(span, to_a, onward)

    def through(self, layer: Layer, d: Direction, to: Factors, v_out: Tensor, arriving: Tensor) -> Tensor:
        candidate, steps = d.gates(CANDIDATE), to.span.steps
        u, descending, size = torch.empty_like(to.to_a), not d.reverse, 0
        each = (steps.each(t, descending) for t in (v_out, to.onward, u))
        for n, v_t, onward_t, u_t in zip(steps.ordered(descending), *each, strict=True):
            if n != size:
                here, size = arriving[:, :n], n
                v_before, v_a = here.unbind(0)
            torch.addmm(v_t, v_a, candidate.w_h, out=u_t).add_(v_before)
            torch.mul(onward_t, u_t, out=here)
        if layer.trace.report:
            layer.note("bias", candidate.b_h, u * to.onward[1])
        v_a = u.mul_(to.to_a)
        layer.note("bias", candidate.b_x, v_a)
        return v_a

    def initial(self, d: Direction, arriving: Tensor) -> tuple[Tensor, Tensor]:
        return torch.addmm(arriving[0], arriving[1], d.gates(CANDIDATE).w_h), arriving[0, :, :0]

    def general(self, sharing: Sharing, d: Direction, s: States, values: Values, c_before: Tensor, r: Back) -> Back:
        """Step by step, for any rules."""
        gates, candidate = d.gates(RESET, 2), d.gates(CANDIDATE)
        size, e = values.h.shape[1], values.x.shape[1]
        # A gate that takes a share of r (U h + b') is one more summand of the candidate's pre-activation.
        with unrecorded():
            weight = torch.cat([candidate.joint, torch.eye(size).to(candidate.joint)], 1)
        a_gates = gates.preactivations(values.x, values.h)
        given = torch.empty_like(values.x)
        for rows, n in sharing.layer.steps.backward(d.reverse):
            reset, z, new, a_h, x, before = (t[rows] for t in (s.r, s.z, s.n, s.a_h, values.x, values.h))
            r_new, r_old = sharing.sum(r.h[:n] + r.rows[rows], values.out[rows], (1 - z) * new, z * before)
            r_keep, r_n = sharing.product(r_new, 1 - z, new)
            r_z, r_before = sharing.product(r_old, z, before)
            of_reset, of_signal = sharing.shares(reset, a_h)
            sharing.require_signs(of_signal)
            linear = Gated((None, of_signal * reset, None), (e, size, size))
            inputs, bias = torch.cat([x, before, of_reset * reset * a_h], -1), _bias(candidate, of_signal * reset)
            out, r_in = sharing.affine(r_n, s.a[rows], inputs, weight, bias, linear, extra=size)
            given[rows], r.h[:n] = out[:, :e], r_before + r_in[:, e : e + size]
            if sharing.to_gates:
                r_gates = torch.cat([r_in[:, e + size :], r_keep + r_z], -1)
                out, r_in = sharing.affine(r_gates, a_gates[rows], inputs[:, : e + size], gates.joint, gates.bias)
                given[rows] += out[:, :e]
                r.h[:n] += r_in[:, e:]
        return Back(given, r.h, r.c)


def _bias(candidate: Direction, reset: Tensor) -> Tensor | None:
    """b + r b'"""
    if candidate.b_x is None or candidate.b_h is None:
        return None
    return candidate.b_x + reset * candidate.b_h
