"""Joint linear operations: x K + h U + b, as a recurrent cell computes it, is one linear operation on [x, h].

Its denominator is the whole pre-activation. Sharing first between the two products, then inside each, would be another
thing wherever one of them is near zero. A summand may be a part of a linear operation's output (a chunk of all gates'
pre-activations, one time step of all), and a gate may scale it, as the reset gate of a GRU does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from relprop.asking import decided, unrecorded
from relprop.engine.affine import Affine, affine
from relprop.engine.call import Call, on_gradient
from relprop.engine.linear_map import Gated, LinearMap, Matrix
from relprop.engine.operation import Node, Replay, map_leaves, map_tensors, tensors_in
from relprop.engine.trace import Trace

# Carriers whose result is part of their input, element by element.
_PARTS = {
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "t", "swapaxes",
    "movedim", "contiguous", "clone", "expand", "__getitem__", "select", "narrow", "index_select", "split",
    "split_with_sizes", "unsafe_split", "tensor_split", "chunk", "unsafe_chunk", "unbind", "slice", "_unsafe_view",
    "alias",
}  # fmt: skip


@dataclass(frozen=True)
class Term:
    """gate * (source W^T) + constant, W (out, in); the constant holds the gate's factor already. Or a constant alone.

    key: names the weights, so that the same ones are joined once; None where they can't be named. record: the linear
    operation it is of, at these rows and columns of its output (None: at all). sign: what its output was multiplied by.
    """

    source: Any = None
    weight: Any = None
    constant: Tensor | None = None
    record: Any = None
    key: tuple[object, ...] | None = None
    gate: Tensor | None = None
    rows: Tensor | None = None
    columns: Tensor | None = None
    sign: int = 1
    # The source's provenance, by which an in-place change of it is seen.
    node: Node | None = None


def remember_part(call: Call, out: object) -> None:
    """After a carrier: if it took a part of a linear operation's output, remember which."""
    live = call.trace.live(call.args, call.kwargs)
    if call.name not in _PARTS or call.inplace or len(live) != 1:
        return
    node = call.node(live[0])
    if node.part is None and not _is_linear(call.trace, node):
        return
    replay = Replay(call.func, *_with_nodes(call))
    for i, result in enumerate(tensors_in(out)):
        call.node(result).part = replace(replay, output=i)


def remember_gate(call: Call, gate: Tensor, signal: Any, out: Tensor) -> None:
    """After gate * signal: remember the gate if the signal came straight out of a linear operation, or is constant."""
    if out.shape != gate.shape:
        return
    call.node(out).gate = call.node(gate)
    if call.trace.gates:
        return
    if not call.live(signal):
        call.node(out).gated = call.trace.keep(out), None
        return
    node = call.node(signal)
    # x f(x), as in x * sigmoid(x), is an activation of x, and no cell's gate.
    if call.node(gate).function_of is not node and (node.part is not None or _is_linear(call.trace, node)):
        call.node(out).gated = call.trace.keep(gate), node


def join(call: Call, a: Any, b: Any, sign: int = 1) -> Tensor | None:
    """a + sign * b as one linear operation, if both come straight out of linear ones or are constant; else None."""
    trace = call.trace
    live = [call.node(part) for part in (a, b) if call.live(part)]
    if any(node.gated is None and not _records(trace, node) for node in live):
        return None
    found: list[Term] = []
    for part, factor in ((a, 1), (b, sign)):
        own = terms(trace, call.node(part)) if call.live(part) else (Term(constant=torch.as_tensor(part).detach()),)
        if not own:
            return None
        found += own if factor == 1 else [_negative(term) for term in own]
    out_of = [t for t in found if t.source is not None]
    if not out_of or len({(t.weight.shape[0], t.source.dtype) for t in out_of}) > 1:
        return None
    shape = torch.broadcast_shapes(*(part.shape for part in (a, b) if isinstance(part, Tensor)))  # type: ignore[no-untyped-call]
    if shape[-1] != out_of[0].weight.shape[0]:
        return None
    constants = [t.constant for t in found if t.constant is not None]
    constant = None if not constants else sum(constants[1:], constants[0])
    linear: LinearMap = Matrix()
    if any(t.gate is not None for t in out_of):
        linear = Gated(tuple(t.gate for t in out_of), tuple(t.weight.shape[1] for t in out_of))
    x = _side_by_side(call, [t.source for t in out_of], shape[:-1])
    out = affine(call, "linear", linear, x, _joined(trace, out_of), None, constant, call.run)
    op = call.node(out).operation
    owners = list(dict.fromkeys(t.record.op for t in out_of))
    op.function = " + ".join([*(owner.function for owner in owners), call.title])
    (op.module, op.module_type), *op.other_modules = dict.fromkeys((o.module, o.module_type) for o in owners)
    trace.affine[op.index].terms = tuple(
        t if t.source is None else replace(t, node=trace.node(t.source)) for t in found
    )
    for term in out_of:
        _watch(term, out)
    return out


def _side_by_side(call: Call, sources: list[Tensor], lead: torch.Size) -> Tensor:
    """[x, h]: the sources, of shape (*lead, features) or to be expanded to it, along the last axis."""
    expanded = [s if s.shape[:-1] == lead else call.decompose(Tensor.expand, s, *lead, -1) for s in sources]
    return cast(Tensor, expanded[0] if len(expanded) == 1 else call.decompose(torch.cat, expanded, -1))


def same_cell(trace: Trace, a: Node, b: Node) -> bool:
    """Whether two gates belong to one recurrent cell: linear operations on the same inputs open and close them."""
    read = [{record.op.sources[0] for record in _records(trace, gate.function_of or gate)} for gate in (a, b)]
    return bool(read[0]) and read[0] == read[1]


def _records(trace: Trace, node: Node) -> list[Affine]:
    """The linear operations that a tensor came straight out of; none if it didn't."""
    if node.gated is not None:
        signal = node.gated[1]
        return [] if signal is None else _records(trace, signal)
    while node.part is not None:
        node = _nodes_in(node.part)[0]
    if not _is_linear(trace, node):
        return [] if node.gated is None else _records(trace, node)
    record = trace.affine[node.operation.index]
    return [t.record for t in record.terms if t.record is not None] or [record]


def terms(trace: Trace, node: Node) -> tuple[Term, ...]:
    """The summands of a tensor that came straight out of linear operations; none if it didn't."""
    if node.gated is not None:
        kept, signal = node.gated
        if signal is None:
            return (Term(constant=kept.value),)
        # Below zero it would exchange the positive and the negative weights.
        if not (node.gate and node.gate.nonnegative) and decided(
            (kept.value < 0).any(), "a linear operation is joined to the next one unless its gate is below zero"
        ):
            return ()
        return tuple(_scaled(term, kept.value) for term in terms(trace, signal))
    if node.part is not None:
        return _part(trace, node)
    if not _is_linear(trace, node):
        return ()
    record = trace.affine[node.operation.index]
    if record.terms:
        unchanged = all(t.source is None or trace.node(t.source) is t.node for t in record.terms)
        return record.terms if unchanged else ()
    key = None if record.scale is not None else (id(record.raw_weight),)
    return (Term(record.source, record.weight, record.constant, record, key),)


def _is_linear(trace: Trace, node: Node) -> bool:
    """Whether an affine operation over the last axis made this tensor, of an input that is still what it was."""
    record = trace.affine.get(node.operation.index)
    if record is None or not isinstance(record.linear, (Matrix, Gated)) or node.operation.kind != "linear":
        return False
    return trace.node(record.source) is node.operation.sources[0]


def _scaled(term: Term, gate: Tensor) -> Term:
    constant = None if term.constant is None else gate * term.constant
    return replace(term, gate=gate if term.gate is None else gate * term.gate, constant=constant)


def _negative(term: Term) -> Term:
    constant = None if term.constant is None else -term.constant
    if term.source is None:
        return replace(term, constant=constant)
    key = None if term.key is None else ("-", *term.key)
    return replace(term, weight=-term.weight, constant=constant, key=key, sign=-term.sign)


def _part(trace: Trace, node: Node) -> tuple[Term, ...]:
    """A part of a linear operation's output: some rows (samples, steps) and columns (features) of it."""
    base = node
    while base.part is not None:
        base = _nodes_in(base.part)[0]
    whole, shape = terms(trace, base), tuple(map(int, base.shape))
    with unrecorded():
        row_of = torch.arange(torch.Size(shape[:-1]).numel()).reshape(*shape[:-1], 1).expand(shape)
        rows, columns = _replayed(node, row_of), _replayed(node, torch.arange(shape[-1]).expand(shape))
    if not whole or rows.dim() == 0 or rows.numel() == 0:
        return ()
    flat_rows, flat_columns = rows.reshape(-1, rows.shape[-1]), columns.reshape(-1, rows.shape[-1])
    if not bool((flat_rows == flat_rows[:, :1]).all() and (flat_columns == flat_columns[:1]).all()):
        return ()
    return tuple(_part_of(trace, term, node, shape, flat_rows[:, 0], flat_columns[0]) for term in whole)


def _part_of(trace: Trace, term: Term, node: Node, shape: tuple[int, ...], rows: Tensor, columns: Tensor) -> Term:
    """These rows and columns of one term, the whole being of this shape."""
    gate, constant = (None if t is None else _replayed(node, t.expand(shape)) for t in (term.gate, term.constant))
    if term.source is None:
        return replace(term, constant=constant)
    source, weight, key, device = term.source, term.weight, term.key, term.source.device
    if node.shape[:-1] != shape[:-1] or not _in_order(rows):
        with trace:
            picked = source.expand(*shape[:-1], -1).reshape(-1, source.shape[-1]).index_select(0, rows.to(device))
            source = picked.reshape(*node.shape[:-1], -1)
    if len(columns) != shape[-1] or not _in_order(columns):
        key = None if key is None else (*key, *columns.tolist())
        weight = _remembered(trace, key, lambda: term.weight[columns.to(device)], (term.record.raw_weight,))
    if term.rows is not None and term.columns is not None:  # a part of a part
        rows, columns = term.rows.cpu()[rows], term.columns.cpu()[columns]
    return replace(
        term, source=source, weight=weight, constant=constant, key=key, gate=gate,
        rows=rows.to(device), columns=columns.to(device),
    )  # fmt: skip


def _in_order(places: Tensor) -> bool:
    with unrecorded():
        return torch.equal(places, torch.arange(len(places)))


def _replayed(node: Node, value: Tensor) -> Tensor:
    """What a part of a tensor would be, were the tensor `value`."""
    if node.part is None:
        return value
    return node.part(lambda source: _replayed(source, value))


def _joined(trace: Trace, found: list[Term]) -> Tensor:
    """The weights of all terms side by side: the same tensor for the same weights, for rules that prepare them."""
    keys = [t.key for t in found]
    key = None if None in keys else tuple(keys)
    owners = tuple(t.record.raw_weight for t in found)
    return _remembered(trace, key, lambda: torch.cat([t.weight.to(found[0].weight) for t in found], 1), owners)


def _remembered(
    trace: Trace, key: tuple[object, ...] | None, make: Callable[[], Tensor], owners: tuple[Tensor, ...]
) -> Tensor:
    if key is None:
        return make()
    if key not in trace.derived_weights:
        trace.derived_weights[key] = make(), owners  # the owners stay alive, and so do their ids
    return trace.derived_weights[key][0]


def _watch(term: Term, out: Tensor) -> None:
    """Tell those who watch a summand's linear operation what its output gets: its value times v."""
    record = term.record
    if not record.op.watchers:
        return
    value = record.linear.forward(record.x.value, record.weight)
    value = value if record.bias is None else value + record.bias
    shape = value.shape
    value = value.reshape(-1, shape[-1])
    if term.rows is not None and term.columns is not None:
        value = value[term.rows[:, None], term.columns]
    gate = term.gate

    def notify(v: Tensor) -> None:
        v = v if gate is None else v * gate
        relevance = term.sign * value * v.sum_to_size(*term.source.shape[:-1], v.shape[-1]).reshape(value.shape)
        if term.rows is not None and term.columns is not None:
            empty = relevance.new_zeros((torch.Size(shape[:-1]).numel(), shape[-1]))
            relevance = empty.index_put((term.rows[:, None], term.columns), relevance, accumulate=True)
        for watch in record.op.watchers:
            watch(relevance.reshape(shape))

    on_gradient(out, notify)


def _with_nodes(call: Call) -> tuple[tuple[object, ...], dict[str, object]]:
    def node(t: Tensor) -> object:
        return call.trace.node(t) or t

    return map_tensors(call.args, node), map_tensors(call.kwargs, node)


def _nodes_in(replay: Replay) -> list[Node]:
    found: list[Node] = []
    map_leaves((replay.args, replay.kwargs), lambda leaf: found.append(leaf) if isinstance(leaf, Node) else None)
    return found
