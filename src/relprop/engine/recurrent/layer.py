"""One recurrent layer in all its directions: what it keeps of the forward pass, and how relevance leaves it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from relprop.engine.operation import Kept, Operation, inner
from relprop.engine.recurrent.direction import Back, Direction, Passage, Values, share
from relprop.engine.recurrent.sharing import Sharing
from relprop.engine.recurrent.steps import Steps
from relprop.engine.trace import Trace
from relprop.errors import InvalidRule
from relprop.rules import Epsilon, Flat, Pass, ProductRule, Rule, SignalTakesAll, WSquare, ZBox, Zero
from relprop.rules.product import WithGates


class Cell(Protocol):
    """A kind of recurrent layer."""

    def states(self, d: Direction, steps: Steps, values: Values, c0: Tensor) -> Any:
        """What the cell computed in all rows; its `c` are the cell states, (rows, 0) where there are none."""

    @property
    def candidate(self) -> int:
        """Which gate's pre-activation passes relevance to x."""

    def factors(self, way: Passage, eps: float) -> Iterator[Any]:
        """What LRP-0 and LRP-epsilon with constant gates multiply v by, span by span from the layer's last step."""

    def through(self, layer: Layer, d: Direction, to: Any, v_out: Tensor, arriving: Tensor) -> Tensor:
        """v at the pre-activations of one span (rows, d), from v at its outputs and from later spans.

        arriving (2, batch, d), changed in place: v at the cell states or what bypasses the candidate, and v at the
        candidate's pre-activations, as it goes through the recurrent weights.
        """

    def initial(self, d: Direction, arriving: Tensor) -> tuple[Tensor, Tensor]:
        """v at the initial states h0 (batch, p) and c0 (batch, d)."""

    def general(self, sharing: Sharing, d: Direction, s: Any, values: Values, c_before: Tensor, r: Back) -> Back:
        """Any rules: R comes in and goes out, but at the rows goes out what the rule gives, v or R."""


@dataclass(frozen=True)
class Ends:
    """What arrives at the layer's outputs, or is sent to its inputs.

    rows (steps, batch, features) or (rows, features) at all steps, h (directions, batch, p) and c (directions, batch,
    d) at the states. At the outputs h is zero, as the last hidden states are among the rows.
    """

    rows: Tensor
    h: Tensor
    c: Tensor


@dataclass(eq=False)
class Layer:
    """One layer of a recurrent module, with inputs x, h0 (directions, batch, p) and c0 (directions, batch, d).

    constant: which of the three don't depend on the model's input; what they get is reported as lost to them.
    """

    op: Operation
    trace: Trace
    cell: Cell
    directions: list[Direction]
    steps: Steps
    x: Kept
    h0: Kept
    c0: Kept
    constant: tuple[bool, ...]
    _computed: dict[int, tuple[Direction, Values, Any]] = field(default_factory=dict)
    _factors: dict[tuple[int, float], list[Any]] = field(default_factory=dict)

    def keep_outputs(self, out: Tensor, c: Tensor) -> None:
        """out: all outputs, of any shape (..., directions * p); c: the last cell states."""
        self.out, self.last_c = self.trace.keep(out), self.trace.keep(c)

    def release(self) -> None:
        """Let go of all values."""
        self._computed.clear()
        self._factors.clear()
        for name in ("x", "h0", "c0", "out", "last_c", "trace"):
            self.__dict__.pop(name, None)

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes: half precision is too coarse to add up many steps."""
        return torch.promote_types(self.out.value.dtype, torch.float32)

    def ends(self, rows: Tensor | None, c: Tensor | None) -> Ends:
        """What arrived at the outputs; zero where nothing did."""
        out = self.out.value
        rows = torch.zeros_like(out) if rows is None else rows
        c = torch.zeros_like(self.last_c.value) if c is None else c
        h = torch.zeros_like(self.h0.value)
        return Ends(rows.to(self.dtype), h.to(self.dtype), c.to(self.dtype))

    def note(self, cause: str, part: Tensor | None, v: Tensor) -> None:
        """Enter part * v, a share that no input gets, in the conservation report (if one is made)."""
        if self.trace.report and part is not None:
            self.op.flow.absorb(cause, inner(part.expand_as(v), v))

    def redistribute(self, v: Ends, r: Ends | None) -> Ends:
        """What the rules send to x, h0 and c0: v = R / value where the rule is proportional to the value, else R.

        v: what arrived at the outputs; r: what their relevance paths brought, if they did.
        """
        rule, gate = self._rules()
        plain = isinstance(rule, (Zero, Epsilon)) and rule.proportional and gate == SignalTakesAll() and r is None
        out = self._plainly(v, rule.stabiliser()) if plain else self._generally(v, r, rule, gate)
        if self.trace.report:
            self._report(v, r, out)
        if self.op.run.last:
            self.release()
        return out

    def _rules(self) -> tuple[Rule, ProductRule]:
        given = self.op.rule
        rule, gate = (given.rule, given.gate) if isinstance(given, WithGates) else (given, SignalTakesAll())
        if isinstance(rule, (ZBox, Flat, WSquare, Pass)):
            raise InvalidRule(
                f"{rule} was given to {self.op.where}, a recurrent layer, where it has no meaning: it would treat "
                'hidden states as inputs. Put an entry before it: ("recurrent", Epsilon(1e-6))'
            )
        return rule, gate

    def _plainly(self, v: Ends, eps: float) -> Ends:
        """LRP-0 and LRP-epsilon with constant gates: v = R / value comes in and goes out."""
        x, states = self.x.value, []
        rows = torch.empty((self.steps.starts[-1], x.shape[-1]), dtype=self.dtype, device=x.device)
        for k in range(len(self.directions)):
            way = self._passage(k)
            candidate, v_out = way.d.gates(self.cell.candidate), self._columns(v.rows, k)
            arriving = v_out.new_zeros((2, self.steps.batch, candidate.w_h.shape[0]))
            if v.c.shape[-1]:
                last = self.last_c.value[k].to(self.dtype)
                torch.mul(v.c[k], share(last, last, eps), out=arriving[0])
            for to in self._all_factors(k, way, eps):
                v_a = self.cell.through(self, way.d, to, to.span.of(v_out), arriving)
                part = rows[to.span.rows]
                part.addmm_(v_a, candidate.w_x) if k else torch.mm(v_a, candidate.w_x, out=part)
            states.append(self.cell.initial(way.d, arriving))
        h, c = (torch.stack(each) for each in zip(*states, strict=True))
        return Ends(rows, h, c)

    def _generally(self, v: Ends, r: Ends | None, rule: Rule, gate: ProductRule) -> Ends:
        sent = [
            self._general(k, rule, gate, self._of(v, k), None if r is None else self._of(r, k))
            for k in range(len(self.directions))
        ]
        rows = sum((back.rows for back in sent[1:]), sent[0].rows)
        return Ends(rows, torch.stack([back.h for back in sent]), torch.stack([back.c for back in sent]))

    def _columns(self, rows: Tensor, k: int) -> Tensor:
        """The features of one direction."""
        p = self.h0.value.shape[-1]
        return rows[..., k * p : (k + 1) * p]

    def _passage(self, k: int) -> Passage:
        out = self.out.value
        h0, c0 = (kept.value[k].to(self.dtype) for kept in (self.h0, self.c0))
        d, own = self.directions[k].to(self.dtype), self._columns(out.reshape(-1, out.shape[-1]), k)
        return Passage(d, self.steps, self.x.value, h0, c0, own)

    def _all_factors(self, k: int, way: Passage, eps: float) -> Iterable[Any]:
        """Kept, if another backward pass may ask for them."""
        if self.op.run.last and (k, eps) not in self._factors:
            return self.cell.factors(way, eps)
        if (k, eps) not in self._factors:
            self._factors[k, eps] = list(self.cell.factors(way, eps))
        return self._factors[k, eps]

    def _of(self, ends: Ends, k: int) -> Back:
        """The part of one direction; what arrived at the states is added to on the way."""
        rows = ends.rows.reshape(-1, ends.rows.shape[-1])
        return Back(self._columns(rows, k), ends.h[k].clone(), ends.c[k].clone())

    def _values(self, k: int) -> tuple[Direction, Values, Any]:
        """One direction's parameters, its values in all rows, and what its cell computed there."""
        if k not in self._computed:
            way = self._passage(k)
            values = way.values(self.steps.whole)
            self._computed[k] = way.d, values, self.cell.states(way.d, self.steps, values, way.c0)
        return self._computed[k]

    def _general(self, k: int, rule: Rule, gate: ProductRule, v: Back, r: Back | None) -> Back:
        d, values, states = self._values(k)
        back = Back(v.rows * values.out, v.h, v.c * self.last_c.value[k].to(v.c))
        if r is not None:
            back = Back(back.rows + r.rows, back.h, back.c + r.c)
        h0, c0 = (kept.value[k].to(self.dtype) for kept in (self.h0, self.c0))
        c_before = self.steps.previous(states.c, c0, d.reverse)
        sent = self.cell.general(Sharing(self, rule, gate), d, states, values, c_before, back)
        if rule.proportional:
            sent.h, sent.c = (torch.where(x == 0, 0, relevance / x) for x, relevance in ((h0, sent.h), (c0, sent.c)))
        return sent

    def _report(self, v: Ends, r: Ends | None, sent: Ends) -> None:
        flow, proportional = self.op.flow, self.op.rule.proportional
        flow.received += inner(self.out.value, v.rows) + inner(self.last_c.value, v.c)
        if r is not None:
            flow.received += float(r.rows.double().sum() + r.c.double().sum())
        x = self.x.value
        inputs = (x.reshape(-1, x.shape[-1]), sent.rows), (self.h0.value, sent.h), (self.c0.value, sent.c)
        for name, (value, given), constant in zip(
            ("constant", "initial state", "initial state"), inputs, self.constant, strict=True
        ):
            amount = inner(value, given) if proportional else float(given.double().sum())
            if constant:
                flow.absorb(name, amount)
            else:
                flow.passed += amount
