"""Segments: parts of a forward pass whose values are let go of, and computed again when a backward pass needs them.

The graph that is recorded stays what it is. In a segment, a value that is kept has only its place in the order in which
values are kept; when one is asked for, the segment's modules run once more from their inputs, under a second trace that
takes the same decisions, and what is kept there fills the places. Activation checkpointing, for values instead of
gradients (Chen et al. 2016).
"""

from __future__ import annotations

import contextlib
import weakref
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass, replace
from itertools import islice
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn

from relprop.engine import custom
from relprop.engine.affine import Affine
from relprop.engine.operation import Kept, Node, Operation, map_leaves, tensors_in
from relprop.engine.trace import Trace, innermost
from relprop.engine.weights import checksum
from relprop.errors import InvalidInput, RelpropError
from relprop.models.stages import Stage


class Recomputed(Kept):
    """A value kept in a segment: there while the segment runs, and again once it is asked for."""

    __slots__ = ("_segment",)

    def __init__(self, tensor: Tensor, segment: Segment) -> None:
        super().__init__(tensor)
        self._segment = segment

    @property
    def value(self) -> Tensor:
        if self._tensor is None:
            self._segment.recompute()
        return super().value

    @property
    def there(self) -> bool:
        return self._tensor is not None

    @property
    def place(self) -> int:
        return super().place if self.there else 0

    def preserve(self) -> None:
        if self.there:
            super().preserve()

    def accept_change(self) -> None:
        if self.there:
            super().accept_change()

    def fill(self, kept: Kept) -> None:
        """Take over the value that was kept in this one's place."""
        self._tensor, self._version = kept._tensor, kept._version

    def drop(self) -> None:
        self._tensor = None  # type: ignore[assignment]


class _LetGo:
    """In the place of a live tensor of a segment that has ended: whoever needs it can't be served, and must say so."""

    def _refuse(self) -> NoReturn:
        raise RelpropError(
            "a tensor from inside of a segment is used after the segment, in a way that depends on how it was computed "
            "(a batch norm that folds into a convolution, a softmax by hand). Choose segments=[...] that end elsewhere"
        )

    def __getattr__(self, name: str) -> NoReturn:
        self._refuse()

    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> NoReturn:
        cls()._refuse()


_LET_GO: Any = _LetGo()


class _Origin(_LetGo):
    """As _LetGo, but it can still be asked where the tensor came from."""

    def __init__(self, tensor: Any) -> None:
        self.grad_fn, self.output_nr = tensor.grad_fn, tensor.output_nr


@dataclass(eq=False)
class _Given:
    """A live tensor given to a segment. changed: whether the segment overwrote it."""

    kept: Kept
    node: Node
    view: bool
    changed: bool = False

    def again(self, trace: Trace) -> Tensor:
        """A live tensor of the same value, form and provenance."""
        value = self.kept.value
        leaf = value.detach().requires_grad_()
        if self.changed:
            leaf = leaf.clone()
        # [...] keeps the strides, by which a kernel is chosen; view_as changes those of dimensions of size one.
        made = leaf[...] if self.view or not self.changed else leaf
        trace._register(self.node.operation, made, self.node)
        return made


@dataclass(frozen=True, eq=False)
class _Constant:
    """A tensor given to a segment that does not depend on the model's input."""

    tensor: Tensor
    version: int


class Segment:
    """One call of a stage: what it was given, and how to run it again as it ran."""

    def __init__(self, trace: Trace, stage: Stage, args: tuple[Any, ...], kwargs: dict[str, Any], of: Segments) -> None:
        self.trace, self.stage, self.of = trace, stage, of
        given = tensors_in(args, kwargs)
        nodes = [trace.node(tensor) for tensor in given]
        self._first, self._nodes_before = len(trace.operations), len(trace.nodes)
        self._places: list[tuple[weakref.ref[Recomputed], torch.Size, torch.dtype]] = []
        self._outputs: list[tuple[torch.Size, tuple[int, str]]] = []
        self._held: list[Affine] = []
        # What stays all the same: ids of values that belong to operations before the segment, or that are held.
        self._pinned: set[int] = set()
        self._watching: list[weakref.finalize[Any, Any]] = []
        self._random: Tensor | None = torch.get_rng_state()
        self._autocast = [
            (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
            for device in dict.fromkeys(("cpu", *(tensor.device.type for tensor in given)))
        ]
        self._state: list[tuple[Any, dict[str, Any]]] = []
        self._written = self._versions()
        self._live: list[tuple[Tensor, int, _Given]] = []
        known: dict[int, _Given | _Constant] = {}
        for tensor, node in zip(given, nodes, strict=True):
            if id(tensor) not in known:
                known[id(tensor)] = self._take(tensor, node)
        self._given: tuple[Any, Any] | None = map_leaves((args, kwargs), lambda leaf: known.get(id(leaf), leaf))
        self._unkept = [op for op in trace.operations if op.keeps_output and op.z is None]
        # What made the inputs in an earlier segment, into which the first steps of this one may fold.
        made_by = {node.operation for node in _leading_to([node for node in nodes if node is not None])}
        records = [trace.affine[op.index] for op in made_by if op.index in trace.affine]
        self._earlier = [(r, dict(r.__dict__)) for r in records if isinstance(r.x, Recomputed)]
        # The output of the stage's module before, which the next one must be called with.
        self.latest: Any = None

    def _take(self, tensor: Tensor, node: Node | None) -> _Given | _Constant:
        if node is None:
            return _Constant(tensor, tensor._version)
        taken = _Given(self.trace.keep(tensor), node, tensor._is_view())
        if node.operation.keeps_output and node.operation.z is None:
            node.operation.z = taken.kept  # before the segment's first operation would keep it as its own
        self._live.append((tensor, tensor._version, taken))
        for each in (node, node.operation):
            self._state.append((each, dict(each.__dict__)))
        return taken

    def _versions(self) -> dict[str, int]:
        return {
            f"{type(module).__name__}.{name}": tensor._version
            for module in self.stage.modules
            for name, tensor in module.named_buffers()
        }

    def keep(self, tensor: Tensor) -> Recomputed:
        """A place for this value in the order of those that are kept."""
        kept = Recomputed(tensor, self)
        self._places.append((weakref.ref(kept), tensor.shape, tensor.dtype))
        return kept

    # ---- the end of the first run

    def finish(self, output: Any) -> None:
        """Let go of everything that can be computed again."""
        trace = self.trace
        self._refuse_writing()
        for tensor, version, taken in self._live:
            taken.changed = tensor._version != version
        self._live.clear()
        if self._random is not None and torch.equal(self._random, torch.get_rng_state()):
            self._random = None
        kept_here = [op for op in self._unkept if op.z is not None]
        self._state += [(op, {"z": None}) for op in kept_here]
        self._pinned = {id(op.z) for op in kept_here}
        self._unkept = []
        self._state += self._used_earlier()
        self._steps = [_step(op) for op in trace.operations[self._first :]]
        results = [tensor for tensor in _tensors(output) if trace.node(tensor) is not None]
        self._outputs = [_sum_of(tensor) for tensor in results]
        self._let_go(results)

    def _used_earlier(self) -> list[tuple[Affine, dict[str, Any]]]:
        """The affine operations of earlier segments that steps of this one fell in with, as they were: they will be let
        go of with the tensors they made."""
        records = [record for index, record in self.trace.affine.items() if index >= self._first]
        used = {id(record.source) for record in records}
        used |= {id(term.record.source) for record in records for term in record.terms if term.record is not None}
        found = []
        for record, then in self._earlier:
            if id(then["source"]) in used:
                kept = Kept(record.x.value)
                found.append((record, {**then, "x": self.trace._protected(kept)}))
        self._earlier = []
        return found

    def _refuse_writing(self) -> None:
        now = self._versions()
        for name, version in self._written.items():
            if now.get(name) != version:
                raise InvalidInput(
                    f"segments: {self.stage.name!r} writes to its buffer {name} when it is called, so it can't be run "
                    "again. Choose segments=[...] without it"
                )

    def _let_go(self, results: list[Tensor]) -> None:
        trace = self.trace
        inside = list(islice(trace.nodes.values(), self._nodes_before, None))
        leaving = _leading_to([cast(Node, trace.node(tensor)) for tensor in results])
        for node in inside:
            if node not in leaving:
                self._cut(node)
        records = [r for index, r in reversed(trace.affine.items()) if index >= self._first]
        operations = {node.operation for node in leaving}
        # What comes next may fold into what made an output, as long as that output is there.
        self._held = [record for record in records if record.op in operations]
        for record in records:
            if record not in self._held:
                _forget(record)
        self._pinned |= {id(record.x) for record in self._held}
        self.sizes = _sizes(kept._tensor for kept in self._kept())
        self.drop()
        if self._held:
            self._to_come = len(results)
            released = weakref.WeakMethod(self._output_gone)
            self._watching = [weakref.finalize(tensor, _call, released) for tensor in results]

    @staticmethod
    def _cut(node: Node) -> None:
        if node.exponent is not None:
            node.exponent = _LET_GO, 0
        if node.unsquashed is not None:
            node.unsquashed = _LET_GO

    def _output_gone(self) -> None:
        self._to_come -= 1
        if self._to_come == 0:
            for record in self._held:
                if "source" in record.__dict__:  # else a last backward pass has let go of it
                    _forget(record)
                    self._pinned.discard(id(record.x))
                    if isinstance(record.x, Recomputed):
                        record.x.drop()
            self._held = []

    def _kept(self) -> Iterator[Recomputed]:
        for ref, _, _ in self._places:
            kept = ref()
            if kept is not None:
                yield kept

    # ---- the second run

    def recompute(self) -> None:
        """Run the stage again, and fill the places of all its values."""
        if self._given is None:
            raise RelpropError(f"the values of segment {self.stage.name!r} were asked for twice; please report this")
        self.of.make_room(self)
        again = _Again(self)
        with self._as_it_was(), again:
            args, kwargs = map_leaves(self._given, again.given)
            out: Any = self.stage.modules[0](*args, **kwargs)
            for module in self.stage.modules[1:]:
                out = module(out)
        self._require_same(again, out)
        for (ref, _, _), kept in zip(self._places, again.in_order, strict=True):
            place = ref()
            if place is not None and not place.there:
                place.fill(kept)
        again.leave()

    @contextlib.contextmanager
    def _as_it_was(self) -> Iterator[None]:
        """The surroundings of the first run, and what was known then of the tensors that are given."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for device, enabled, dtype in self._autocast:
                stack.enter_context(torch.autocast(device, dtype, enabled))
            if self._random is not None:
                stack.enter_context(torch.random.fork_rng(devices=[]))
                torch.set_rng_state(self._random)
            stack.enter_context(custom.seen())
            stack.enter_context(custom.eager())
            now = [(each, dict(each.__dict__)) for each, _ in self._state]
            for each, then in self._state:
                each.__dict__.update(then)
                if isinstance(each, Operation):
                    each.watchers = []
            try:
                yield
            finally:
                for each, before in reversed(now):
                    each.__dict__.update(before)

    def _require_same(self, again: _Again, output: Any) -> None:
        results = [tensor for tensor in _tensors(output) if again.node(tensor) is not None]
        same = (
            [(shape, dtype) for _, shape, dtype in self._places] == again.forms
            and self._steps == [_step(op) for op in again.operations[self._first :]]
            and self._outputs == [_sum_of(tensor) for tensor in results]
        )
        if not same:
            raise RelpropError(
                f"segment {self.stage.name!r} did not compute the same when it was run again: it depends on more than "
                "its inputs and weights (something it remembers from call to call, another source of randomness, "
                "weights that were changed meanwhile). Choose segments=[...] without it"
            )

    def drop(self) -> None:
        """Let go of all values that can be computed again."""
        for kept in self._kept():
            if id(kept) not in self._pinned:
                kept.drop()

    def close(self) -> None:
        """Let go of everything: nothing will be asked again."""
        self.drop()
        for each in self._watching:
            each.detach()
        self._given, self._state, self._held = None, [], []


class _Again(Trace):
    """The second recording of a segment, which sees the provenance of everything before it."""

    def __init__(self, segment: Segment) -> None:
        of, first = segment.trace, segment._first
        super().__init__(
            of.names,
            of.prepared,
            paths_everywhere=of.paths_everywhere,
            gates=of.gates,
            report=of.report,
            attention=of.attention is not None,
        )
        self.of, self._first = of, first
        self.operations = of.operations[:first]
        self.affine = {index: record for index, record in of.affine.items() if index < first}
        self.derived_weights = dict(of.derived_weights)
        self.nodes = cast(Any, ChainMap({}, of.nodes))
        self._known = cast(Any, ChainMap({}, of._known))
        self._foreign = cast(Any, ChainMap({}, of._foreign))
        inputs = {id(given): replace(given, leaves=[], places=[]) for _, given in of._tokens}
        self._tokens = [(tokens, inputs[id(given)]) for tokens, given in of._tokens]
        # What is kept, in order, and its shapes and dtypes.
        self.in_order: list[Kept] = []
        self.forms: list[tuple[torch.Size, torch.dtype]] = []
        self._made: dict[int, Tensor] = {}

    def keep(self, tensor: Tensor) -> Kept:
        kept = super().keep(tensor)
        self.in_order.append(kept)
        self.forms.append((tensor.shape, tensor.dtype))
        return kept

    def given(self, leaf: Any) -> Any:
        """What the segment was given, in place of what stands for it."""
        if isinstance(leaf, _Constant):
            if leaf.tensor._version != leaf.version:
                raise RelpropError(
                    "a constant tensor that was given to a segment was overwritten in place since, so the segment "
                    "can't be run again. Choose segments=[...] without it, or leave that in-place call away"
                )
            return leaf.tensor
        if not isinstance(leaf, _Given):
            return leaf
        if id(leaf) not in self._made:
            with torch._C.DisableTorchFunction():
                self._made[id(leaf)] = leaf.again(self)
        return self._made[id(leaf)]

    def leave(self) -> None:
        """Let go of this recording, but not of the one it is a part of."""
        del self.operations[: self._first]
        self.affine = {index: record for index, record in self.affine.items() if index >= self._first}
        self.close()
        self._made.clear()
        self.in_order.clear()


class Segments:
    """The segments of one session, in a model whose stages are watched through hooks."""

    def __init__(self, trace: Trace, stages: Sequence[Stage]) -> None:
        self.trace, self.stages = trace, stages
        # The segment whose values are there, and whether it was filled for the last backward pass.
        self._filled: Segment | None = None
        self._last = False
        self._handles = [handle for stage in stages for handle in self._hooks(stage)]

    def _hooks(self, stage: Stage) -> Iterator[Any]:
        first, *others = stage.modules

        def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
            if self._listening():
                self._begin(stage, args, kwargs or {})

        def follow(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
            if self._listening():
                self._follow(stage, args, kwargs or {})

        def end(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if self._listening():
                self._end(stage, module, output)

        yield first.register_forward_pre_hook(begin, prepend=True, with_kwargs=True)
        for module in others:
            yield module.register_forward_pre_hook(follow, prepend=True, with_kwargs=True)
        for module in stage.modules:
            yield module.register_forward_hook(end)

    def _listening(self) -> bool:
        """Whether this trace records what is being called, in this thread."""
        return innermost() is self.trace

    def _begin(self, stage: Stage, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.trace.segment is not None:
            self._refuse(self.trace.segment.stage)
        with torch._C.DisableTorchFunction():
            self.trace.segment = Segment(self.trace, stage, args, kwargs, self)

    def _follow(self, stage: Stage, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        segment = self.trace.segment
        if segment is None or segment.stage is not stage or kwargs or len(args) != 1 or args[0] is not segment.latest:
            self._refuse(stage)
        segment.latest = None

    def _end(self, stage: Stage, module: nn.Module, output: Any) -> None:
        segment = self.trace.segment
        if segment is None or segment.stage is not stage:
            self._refuse(stage)
        if module is not stage.modules[-1]:
            segment.latest = output
            return
        self.trace.segment = None
        with torch._C.DisableTorchFunction():
            segment.finish(output)
        self.trace.segments.append(segment)

    @staticmethod
    def _refuse(stage: Stage) -> NoReturn:
        raise InvalidInput(
            f"segments: the layers that begin with {stage.name!r} are not called one after the other, as their "
            "Sequential has them. Name modules that are called as a whole: segments=[...]"
        )

    def require_used(self) -> None:
        """InvalidInput if a stage was not called, or not as a whole."""
        if self.trace.segment is not None:
            self._refuse(self.trace.segment.stage)
        called = {segment.stage for segment in self.trace.segments}
        for stage in self.stages:
            if stage not in called:
                raise InvalidInput(
                    f"segments: the module {stage.name!r} was not called. Name modules that are; of a list its parts: "
                    f'"{stage.name}.*"'
                )

    def make_room(self, filled: Segment) -> None:
        """Before a segment is filled: let go of the one before. A backward pass, which takes operations in the reverse
        of their order, is through with it."""
        before, now = self._filled, self.trace.run.last
        if before is not None and before is not filled:
            before.close() if self._last else before.drop()
        self._filled, self._last = filled, now

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self.trace.segment = None
        for segment in self.trace.segments:
            segment.close()
        self.trace.segments.clear()
        self._filled = None


@contextlib.contextmanager
def in_segments(trace: Trace, stages: Sequence[Stage]) -> Iterator[Segments]:
    """What the trace records of these stages is computed again when it is needed, instead of kept."""
    segments = Segments(trace, stages)
    try:
        yield segments
    finally:
        segments.close()


def memory_of(trace: Trace, model: object) -> tuple[int, int]:
    """(bytes that a backward pass will find kept, bytes of the largest value), beside the model's own; of segments the
    one that takes most, which is filled when the others are empty."""
    weights = {_place(t) for t in (*model.parameters(), *model.buffers())} if isinstance(model, nn.Module) else set()
    kept = [kept for refs in trace._kept.values() for ref in refs if (kept := ref()) is not None]
    there = [each for each in kept if not isinstance(each, Recomputed) or each.there]
    sources = [record.source for record in trace.affine.values() if not isinstance(record.source, _LetGo)]
    sizes = _sizes([*(each._tensor for each in there), *sources])
    outside = [size for place, size in sizes.items() if place not in weights]
    inside = [[size for place, size in each.sizes.items() if place not in weights] for each in trace.segments]
    return sum(outside) + max(map(sum, inside), default=0), max([*outside, *(size for each in inside for size in each)])


def _sizes(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes of memory by its place."""
    return {_place(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    found = method()
    if found is not None:
        found()


def _forget(record: Affine) -> None:
    """Let go of the live tensors of an affine operation; what folds into it afterwards is refused."""
    record.source = cast(Any, _Origin(record.source))
    record.terms = tuple(
        replace(
            term,
            source=None if term.source is None else _Origin(term.source),
            constant=None if term.constant is None else _LET_GO,
            gate=None if term.gate is None else _LET_GO,
        )
        for term in record.terms
    )


def _leading_to(nodes: list[Node]) -> set[Node]:
    """The nodes of which what comes after may ask how they were computed."""
    found: set[Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node in found:
            continue
        found.add(node)
        operation = node.operation
        before = [node.gate, None if node.gated is None else node.gated[1]]
        if node.role == "gate":
            before.append(node.function_of)
        if operation.permutation is not None or node.part is not None:
            before += operation.sources
        stack += [each for each in before if each is not None]
    return found


def _step(op: Operation) -> tuple[object, ...]:
    return op.kind, op.function, op.module, op.affine, op.shape


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in what a module returns."""
    if is_dataclass(value) and not isinstance(value, (type, dict)):
        return tensors_in(list(vars(value).values()))
    return tensors_in(value)


def _sum_of(tensor: Tensor) -> tuple[torch.Size, tuple[int, str]]:
    """The shape and the checksum of a result, which are equal for equal values."""
    return tensor.shape, checksum(torch.view_as_real(tensor) if tensor.is_complex() else tensor)
