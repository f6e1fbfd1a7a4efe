"""torch's recurrent functions: whole modules, padded or packed, and single cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.path import relevance_path
from relprop.engine.recurrent.direction import Direction
from relprop.engine.recurrent.gru import GRU
from relprop.engine.recurrent.layer import Cell, Layer
from relprop.engine.recurrent.lstm import LSTM
from relprop.engine.recurrent.rnn import RNN
from relprop.engine.recurrent.steps import Steps
from relprop.engine.registry import operation
from relprop.errors import TrainingMode

CELLS: dict[str, Cell] = {"lstm": LSTM(), "gru": GRU(), "rnn_tanh": RNN(1.0), "rnn_relu": RNN(0.0)}

# Of one layer: its outputs at all steps, and its last cell states (directions, batch, d), d being 0 if it has none.
Result = tuple[Tensor, Tensor]


class _Recurrence(torch.autograd.Function):
    """Forward: the model's own values. Backward: the rules through time.

    The outputs are the rows and the last cell states, with a twin each where R comes in, if asked for. The inputs are
    x, h0 and c0, and their relevance paths, where R goes out; None for constants.
    """

    @staticmethod
    def forward(
        ctx: Any, layer: Layer, run: Callable[[], Result], twins: bool, *inputs: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        out, c = (t.clone() if t._is_view() else t for t in run())  # autograd forbids changing views made in here
        layer.keep_outputs(out, c)
        ctx.layer, ctx.inputs = layer, [None if t is None else (t.shape, t.dtype) for t in inputs]
        ctx.set_materialize_grads(False)
        return out, c, *((out.clone(), c.clone()) if twins else (None, None))

    @staticmethod
    def backward(ctx: Any, v_out: Tensor | None, v_c: Tensor | None, *r: Tensor | None) -> tuple[Any, ...]:
        layer: Layer = ctx.layer
        proportional = layer.op.rule.proportional
        with torch.autocast(layer.x.value.device.type, enabled=False):
            brought = None if all(t is None for t in r) else layer.ends(*r)
            sent = layer.redistribute(layer.ends(v_out, v_c), brought)
        values, paths = ctx.inputs[:3], ctx.inputs[3:]
        given: list[Any] = [
            None if wanted is None else t.to(wanted[1]).reshape(wanted[0])
            for t, wanted in zip((sent.rows, sent.h, sent.c), values if proportional else paths, strict=True)
        ]
        nothing: list[Any] = [None] * 3
        return None, None, None, *(given + nothing if proportional else nothing + given)


def _layer(
    call: Call,
    cell: Cell,
    directions: list[Direction],
    steps: Steps,
    inputs: tuple[Tensor, Tensor, Tensor],
    run: Callable[[], Result],
    title: str,
) -> Result:
    """Run and record one layer; inputs x, h0 (directions, batch, p), c0 (directions, batch, d)."""
    trace = call.trace
    live = [t if call.live(t) else None for t in inputs]
    op = call.begin("recurrent", [t for t in live if t is not None], affine=True, remainder="stabiliser")
    op.function = title
    x, h0, c0 = (trace.keep(t.detach()) for t in inputs)
    layer = Layer(op, trace, cell, directions, steps, x, h0, c0, tuple(t is None for t in live))
    near = op.first or trace.paths_everywhere
    paths = [None if t is None or not near else relevance_path(trace, t) for t in live]
    out, c, *twins = _Recurrence.apply(layer, run, trace.paths_everywhere, *live, *paths)  # type: ignore[no-untyped-call]
    call.end(op, (out, c))
    for tensor, twin in zip((out, c), twins, strict=True):
        call.node(tensor).path = twin
    trace.recurrent.append(layer)
    return out, c


@operation("lstm", "gru", "rnn_tanh", "rnn_relu", kind="recurrent")
def recurrent(call: Call, x: Tensor, *args: Any) -> Any:
    """(input, hx, params, ...) or, packed, (data, batch_sizes, hx, params, ...)."""
    packed = isinstance(args[0 if call.name == "lstm" else 1], Tensor)
    sizes: Tensor | None = args[0] if packed else None
    hx, params, biased, layers, dropout, train, bidirectional, *batch_first = args[1:] if packed else args
    if train and dropout > 0 and layers > 1:
        raise TrainingMode(
            f"{call.title} in {call.where} drops values at random between its layers, so there is no one decision to "
            "explain. Write model.eval()"
        )
    if call.trace.live(params):
        call.refuse("its weights are computed from the input. relprop explains layers whose weights are constants")
        return call.end(call.begin("unsupported"), call.run())
    transposed = bool(batch_first and batch_first[0])
    if transposed:
        x = call.decompose(torch.transpose, x, 0, 1)
    steps = Steps((x.shape[1],) * x.shape[0] if sizes is None else tuple(sizes.tolist()))
    h, c = hx if call.name == "lstm" else (hx, None)
    count = 2 if bidirectional else 1
    per_layer = len(params) // layers
    last: list[Result] = []
    for k in range(layers):
        own = list(params[k * per_layer : (k + 1) * per_layer])
        directions = [
            _direction(own[d * per_layer // count : (d + 1) * per_layer // count], biased, d) for d in range(count)
        ]
        h0 = _part(call, h, k, count)
        c0 = _no_cells(h0) if c is None else _part(call, c, k, count)
        title = call.title if layers == 1 else f"{call.title} (layer {k})"
        run = _native(call, sizes, x.detach(), h0.detach(), c0.detach(), own, biased, bool(bidirectional))
        x, c_n = _layer(call, CELLS[call.name], directions, steps, (x, h0, c0), run, title)
        returned = transposed and k == layers - 1
        if returned:
            x = call.decompose(torch.transpose, x, 0, 1)
        last.append((_last_hidden(call, x, steps, count, returned), c_n))
    h_n, c_n = (
        call.decompose(torch.cat, list(states)) if layers > 1 else states[0] for states in zip(*last, strict=True)
    )
    return (x, h_n) if c is None else (x, h_n, c_n)


def _direction(params: Sequence[Tensor], biased: bool, index: int) -> Direction:
    w_x, w_h, *rest = params
    b_x, b_h = rest[:2] if biased else (None, None)
    projection = rest[2 * biased] if len(rest) > 2 * biased else None
    return Direction(w_x, w_h, b_x, b_h, projection, reverse=index == 1)


def _part(call: Call, states: Tensor, layer: int, count: int) -> Tensor:
    """The initial states of one layer, (directions, batch, ...)."""
    if states.shape[0] == count:
        return states
    if not call.live(states):
        return states.narrow(0, layer * count, count)
    return cast(Tensor, call.decompose(torch.narrow, states, 0, layer * count, count))


def _no_cells(h0: Tensor) -> Tensor:
    return h0.new_zeros((*h0.shape[:2], 0)).detach()


def _native(
    call: Call, sizes: Tensor | None, x: Tensor, h0: Tensor, c0: Tensor, params: list[Tensor], biased: bool, both: bool
) -> Callable[[], Result]:
    """torch's own function for one layer."""
    cells = call.name == "lstm"
    hx: Any = (h0, c0) if cells else h0

    def run() -> Result:
        if sizes is None:
            out, _, *c = call.func(x, hx, params, biased, 1, 0.0, False, both, False)
        else:
            out, _, *c = call.func(x, sizes, hx, params, biased, 1, 0.0, False, both)
        return out, c[0] if c else _no_cells(h0)

    return run


def _last_hidden(call: Call, out: Tensor, steps: Steps, count: int, batch_first: bool) -> Tensor:
    """h_n (directions, batch, p), taken from what the function returns so that its relevance is seen there."""

    def take(out: Tensor) -> Tensor:
        rows = (out.transpose(0, 1) if batch_first else out).reshape(-1, out.shape[-1])
        each = rows.chunk(count, -1)
        return torch.stack(
            [part.index_select(0, steps.last_rows(k == 1).to(out.device)) for k, part in enumerate(each)]
        )

    return cast(Tensor, call.decompose(take, out))


@operation("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell", kind="recurrent")
def cell(
    call: Call, x: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Any:
    """One step: the rows are the samples."""
    if call.trace.live(w_ih, w_hh, b_ih, b_hh):
        call.refuse("its weights are computed from the input. relprop explains layers whose weights are constants")
        return call.end(call.begin("unsupported"), call.run())
    name = call.name.removesuffix("_cell")
    h, c = hx if name == "lstm" else (hx, None)
    h0 = _unsqueezed(call, h)
    c0 = _no_cells(h0) if c is None else _unsqueezed(call, c)

    def run() -> Result:
        result = call.func(x.detach(), hx if c is None else tuple(hx), w_ih, w_hh, b_ih, b_hh)
        return (result, _no_cells(h0)) if c is None else (result[0], result[1][None])

    direction = Direction(w_ih, w_hh, b_ih, b_hh, None, reverse=False)
    out, c_n = _layer(call, CELLS[name], [direction], Steps((x.shape[0],)), (x, h0, c0), run, call.title)
    return out if c is None else (out, call.decompose(torch.select, c_n, 0, 0))


def _unsqueezed(call: Call, states: Tensor) -> Tensor:
    return cast(Tensor, call.decompose(torch.unsqueeze, states, 0)) if call.live(states) else states[None]
