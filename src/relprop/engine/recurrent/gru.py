"""GRU: h_t = (1 - z) n + z h_{t-1}, n = tanh(W x_t + b + r (U h_{t-1} + b')).

n and h_{t-1} share the relevance of h_t; n passes it to its pre-activation, one linear operation on [x_t, h_{t-1}] in
which the gate r scales the recurrent weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.linear_map import Gated
from relprop.engine.recurrent.direction import Back, Direction, Values, share
from relprop.engine.recurrent.sharing import Sharing
from relprop.engine.recurrent.steps import Steps

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


class GRU:
    """Gates in torch's order: reset, update, candidate."""

    def states(self, d: Direction, steps: Steps, values: Values, c0: Tensor) -> States:
        r, z = d.gates(RESET, UPDATE).preactivations(values.x, values.h).sigmoid_().chunk(2, -1)
        candidate = d.gates(CANDIDATE)
        a_h = F.linear(values.h, candidate.w_h, candidate.b_h)
        a = F.linear(values.x, candidate.w_x, candidate.b_x).addcmul_(r, a_h)
        return States(r, z, a_h, a, a.tanh(), values.h[:, :0])

    def epsilon(self, layer: Layer, d: Direction, s: States, values: Values, eps: float, v: Back) -> Back:
        from_h = share(values.out, values.out, eps)
        to_before = from_h * s.z
        to_a = from_h.sub_(to_before).mul_(share(s.n, s.a, eps))
        candidate, v_a = d.gates(CANDIDATE), torch.empty_like(s.a)
        packed = (v.rows, to_a, to_before, s.r, v_a)
        for n, (v_out, a_t, before, reset, v_a_t) in layer.steps.each(not d.reverse, *packed):
            v_h = v.h[:n]
            total = v_h.add_(v_out)
            torch.mul(total, a_t, out=v_a_t)
            torch.addmm(total * before, v_a_t * reset, candidate.w_h, out=v_h)
        layer.note("bias", _bias(candidate, s.r), v_a)
        return Back(v_a @ candidate.w_x, v.h, v.c)

    def general(self, sharing: Sharing, d: Direction, s: States, values: Values, c_before: Tensor, r: Back) -> Back:
        """Step by step, for any rules."""
        gates, candidate = d.gates(RESET, UPDATE), d.gates(CANDIDATE)
        size, e = values.h.shape[1], values.x.shape[1]
        # A gate that takes a share of r (U h + b') is one more summand of the candidate's pre-activation.
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
