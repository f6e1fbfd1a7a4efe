"""The trace: one forward pass in which every function call is seen, recorded, and made to carry relevance.

What autograd carries backwards through the recorded graph is relevance per unit of value, v = R / value.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from relprop.engine import complex, functions, metadata
from relprop.engine.call import Call, on_gradient
from relprop.engine.operation import Kept, Node, Operation, Run, map_tensors, tensors_in
from relprop.engine.path import path_past
from relprop.engine.registry import REGISTRY
from relprop.engine.tokens import CASTS, Tokens
from relprop.engine.weights import PreparedWeights
from relprop.errors import UnsupportedFunction

if TYPE_CHECKING:
    from relprop.engine.affine import Affine
    from relprop.engine.recurrent.layer import Layer
    from relprop.engine.segments import Segment

_MODULE_CALL = torch.nn.Module._call_impl.__code__

# Autograd's own names for views; an in-place change of a view makes such nodes anew for its relatives.
_VIEW_NODES = (
    "View", "AsStrided", "CopySlices", "Slice", "Select", "Alias", "Expand", "Permute", "Transpose", "T", "Unsqueeze",
    "Squeeze", "Unbind", "Split", "SplitWithSizes", "Chunk", "Unfold", "Diagonal", "Detach", "Reshape", "UnsafeView",
)  # fmt: skip


# The traces that this thread is inside of, the innermost last.
_active = threading.local()


def innermost() -> Trace | None:
    """The trace that this thread is inside of, the innermost if there are several."""
    traces: list[Trace] = getattr(_active, "traces", [])
    return traces[-1] if traces else None


class _Enter(torch.autograd.Function):
    """The model's input, where relevance per value is turned into relevance: R = x v."""

    @staticmethod
    def forward(ctx: Any, leaf: Tensor) -> Tensor:
        ctx.x = leaf.detach()
        return leaf.clone()

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        relevance: Tensor = v * ctx.x
        return relevance


@dataclass(frozen=True)
class Unsupported:
    """A function that relevance would flow through and that nobody has described."""

    function: str
    module: str
    advice: str

    def __str__(self) -> str:
        place = f"in module '{self.module}'" if self.module else "at the top of forward"
        return f"{self.function} ({place}): {self.advice}"


@dataclass(eq=False)
class Input:
    """One tensor that relevance is reported for. `leaf` collects it; for token ids there is a leaf per embedding, and
    the places in the input that its rows come from (see Tokens)."""

    key: Any
    tensor: Tensor
    leaves: list[Tensor] = field(default_factory=list)
    tokens: bool = False
    places: list[Tensor] = field(default_factory=list)


class Trace(TorchFunctionMode):
    """Records a forward pass. Use as a context, give inputs to `enter`, and `close` it when nothing more is asked.

    names: id of each module -> its dotted name. paths_everywhere: keep what relevance paths need beyond the first
    affine operations. gates: keep the way to gates, which some rule gives relevance. report: measure what each
    operation receives and passes on. attention: collect what passes from query to key.
    """

    def __init__(
        self,
        names: dict[int, str],
        prepared: PreparedWeights,
        *,
        paths_everywhere: bool = False,
        gates: bool = False,
        report: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.names = names
        self.prepared = prepared
        self.paths_everywhere = paths_everywhere
        self.gates = gates
        self.report = report
        # Of the last backward pass, by the operation's index: relevance (..., queries, keys), before A and V share it.
        self.attention: dict[int, Tensor] | None = {} if attention else None
        self.run = Run()
        self.operations: list[Operation] = []
        self.inputs: list[Input] = []
        self.unsupported: list[Unsupported] = []
        self.notes: dict[str, None] = {}
        self.affine: dict[int, Affine] = {}
        self.recurrent: list[Layer] = []
        self.derived_weights: dict[tuple[object, ...], tuple[Tensor, tuple[Tensor, ...]]] = {}
        self.nodes: dict[tuple[Any, int], Node] = {}
        self._known: dict[Any, list[Node]] = {}
        self._foreign: dict[tuple[Any, int], Node | None] = {}
        self._kept: dict[int, list[weakref.ref[Kept]]] = {}
        self._tokens: list[tuple[Tokens, Input]] = []
        self._decomposing: list[Any] = []
        # The segment that is being run, whose values are computed again in the backward pass.
        self.segment: Segment | None = None
        self.segments: list[Segment] = []

    # ---- inputs

    def enter(self, key: Any, x: Tensor) -> Tensor:
        """The tensor to give to the model in place of x."""
        given = Input(key, x)
        self.inputs.append(given)
        if x.is_floating_point():
            return self._entry(x, given)
        token = x.detach().clone()
        self._tokens.append((Tokens.of(token), given))
        return token

    def enter_embedding(self, value: Tensor, token: Tensor) -> Tensor:
        """An embedding's output, made an input: integer ids are explained there."""
        tokens, given = next((t, i) for t, i in self._tokens if t.ids is token)
        given.tokens = True
        if tokens.places is None:
            self.refuse(
                "embedding",
                self.current_module()[0],
                "which token of the input its ids are can't be told, because a function that relprop can't follow "
                "rearranged them. Rearrange the embedding's output instead",
            )
        given.places.append(torch.zeros(token.shape, dtype=torch.int64) if tokens.places is None else tokens.places)
        return self._entry(value, given)

    def _entry(self, x: Tensor, given: Input) -> Tensor:
        with torch._C.DisableTorchFunction():  # what is done here is no part of the model
            return self._entered(x, given)

    def _entered(self, x: Tensor, given: Input) -> Tensor:
        leaf = _ordinary(x).detach().requires_grad_()
        given.leaves.append(leaf)
        out: Tensor = _Enter.apply(leaf)  # type: ignore[no-untyped-call]
        name = "input" if given.key is None else f"input {given.key!r}"
        op = Operation(len(self.operations), "input", name, "", None, self.run, shape=tuple(x.shape))
        op.name = "tokens" if given.tokens else "input"
        self.operations.append(op)
        self._register(op, out, Node(op, shape=tuple(out.shape), device=out.device, path=leaf))
        return out

    # ---- provenance

    def node(self, tensor: Tensor) -> Node | None:
        """The provenance of a tensor that depends on the input; None for constants."""
        grad_fn = tensor.grad_fn
        if grad_fn is None:
            return None
        found = self.nodes.get((grad_fn, tensor.output_nr))
        return found if found is not None else self._foreign_node(tensor, grad_fn)

    def _register(self, op: Operation, tensor: Tensor, node: Node) -> None:
        key = (tensor.grad_fn, tensor.output_nr)
        if key not in self.nodes:
            self.nodes[key] = node
            self._known.setdefault(tensor.grad_fn, []).append(node)

    def _foreign_node(self, tensor: Tensor, grad_fn: Any) -> Node | None:
        """A tensor that no recorded operation made: a view whose base was changed in place, or a function that
        escaped interception (a custom autograd Function, a C++ extension, a compiled region)."""
        key = (grad_fn, tensor.output_nr)
        if key in self._foreign:
            return self._foreign[key]
        sources, strangers = self._walk_back(grad_fn)
        node = None
        if sources:
            names = dict.fromkeys(_function_of(f) for f in strangers if not _is_view_node(f))
            place, module_type = self.current_module()
            op = Operation(len(self.operations), "carrier", "view", place, module_type, self.run, tuple(sources))
            op.shape = tuple(tensor.shape)
            for name in names:
                self.refuse(
                    name,
                    place,
                    "it ran outside of torch's function calls, so relevance can't follow it. Write it with torch "
                    "functions, or explain a version of the model without it",
                )
            self.operations.append(op)
            node = Node(op, shape=tuple(tensor.shape), device=tensor.device)
            self._register(op, tensor, node)
        self._foreign[key] = node
        return node

    def _walk_back(self, grad_fn: Any) -> tuple[list[Node], list[Any]]:
        """(known nodes, unknown autograd functions on the way) behind an unknown autograd function."""
        sources: dict[Node, None] = {}
        strangers: dict[Any, None] = {}
        stack = [grad_fn]
        while stack:
            f = stack.pop()
            if f is None or f in strangers:
                continue
            if f in self._known:
                sources.update(dict.fromkeys(self._known[f]))
                continue
            strangers[f] = None
            stack += [next_f for next_f, _ in f.next_functions]
        return list(sources), list(strangers)

    def live(self, *values: Any) -> list[Tensor]:
        """The tensors in nested values that depend on the input."""
        return [t for t in tensors_in(*values) if self.node(t) is not None]

    def current_module(self) -> tuple[str, type | None]:
        """(dotted name, type) of the innermost module that is being called."""
        frame: Any = sys._getframe(1)
        while frame is not None:
            if frame.f_code is _MODULE_CALL:
                module = frame.f_locals["self"]
                name = self.names.get(id(module))
                if name is not None:
                    return name, type(module)
            frame = frame.f_back
        return "", None

    # ---- values

    def keep(self, tensor: Tensor) -> Kept:
        """Keep a value for the backward pass; an in-place change of its memory will copy it first."""
        return self._protected(Kept(tensor) if self.segment is None else self.segment.keep(tensor))

    def _protected(self, kept: Kept) -> Kept:
        self._kept.setdefault(kept.place, []).append(weakref.ref(kept))
        return kept

    def before_overwrite(self, tensor: Tensor, spared: Kept | None = None) -> None:
        """Copy the kept values that share memory with a tensor about to be changed in place."""
        storage = tensor.untyped_storage()._cdata
        for ref in self._kept.pop(storage, []):
            kept = ref()
            if kept is None:
                continue
            if kept is not spared:
                kept.preserve()
            self._kept.setdefault(kept.place, []).append(ref)

    def _own_saved_tensors(self) -> torch.autograd.graph.saved_tensors_hooks:
        """Keep what autograd saves as other values are kept, so that code which overwrites it can be explained.

        It also keeps activation checkpointing from recomputing, outside of the trace, what happened in it.
        """
        return torch.autograd.graph.saved_tensors_hooks(self.keep, _value_of)

    def watch(self, tensor: Tensor, notify: Callable[[Tensor], None]) -> None:
        """Call notify(relevance) in every backward pass with what arrives at this tensor, by value or by its path."""
        with torch._C.DisableTorchFunction():  # when called from a hook, inside of the trace
            node = self.node(tensor)
            path = None if node is None else path_past(node)
            if path is not None:
                on_gradient(path, notify)
            if node is None or node.operation.kind != "input":
                kept = self._protected(Kept(tensor))  # asked for, and so no segment's to let go of
                on_gradient(tensor, lambda v: notify(kept.value * v))

    # ---- interception

    def __enter__(self) -> Trace:
        _active.traces = [*getattr(_active, "traces", ()), self]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        _active.traces = _active.traces[:-1]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if _active.traces[-1] is not self:  # an explanation inside another one is no part of the outer model
            return func(*args, **kwargs)
        name, inplace = functions.identify(func)
        if metadata.is_metadata(name):
            return func(*args, **kwargs)
        tensors = tensors_in(args, kwargs)
        if not tensors:
            return func(*args, **kwargs)
        if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
            # no_grad inside a forward cuts gradients; LRP explains values, so relevance goes through.
            with torch.inference_mode(False), torch.enable_grad():
                return self._dispatch(func, name, inplace, tensors, args, kwargs)
        return self._dispatch(func, name, inplace, tensors, args, kwargs)

    def _dispatch(
        self, func: Any, name: str, inplace: bool, tensors: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if not any(self.node(t) is not None for t in tensors):
            return self._constant(func, name, inplace, tensors, args, kwargs)
        if any(t.is_inference() for t in tensors):
            args, kwargs = map_tensors(args, _ordinary), map_tensors(kwargs, _ordinary)
        out_given = kwargs.get("out") is not None
        kwargs = {key: value for key, value in kwargs.items() if key != "out"}
        if kwargs and not isinstance(func, FunctionType):
            args, kwargs = functions.as_positional(name, args, kwargs)
        call = Call(self, func, name, inplace, args, kwargs)
        if out_given:
            call.refuse("it writes to out=. Leave out= away and use the returned tensor")
        entry = REGISTRY.get(name)
        if isinstance(func, FunctionType) and not (entry and (_is_leaf(func) or func in self._decomposing)):
            return self._decompose(func, call)
        if entry is None:
            return self._unknown(call)
        if any(t.is_complex() for t in tensors) and not complex.understood(name, entry.kind):
            call.refuse(
                "of complex numbers. Relevance is defined for real values: take view_as_real, or abs, before it"
            )
        target = args[0] if inplace else None
        if inplace:
            call.preserve_target()
        with self._own_saved_tensors():
            out = entry.handler(call, *call.args, **kwargs)
            if isinstance(target, Tensor) and isinstance(out, Tensor) and out is not target:
                out = call.write_back(target, out)
        # What the graph keeps of the call must not lead to tensors that may be overwritten with what follows.
        call.args = ()
        return out

    def _constant(
        self, func: Any, name: str, inplace: bool, tensors: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A call none of whose tensors depends on a floating-point input."""
        tokens = [entry for tensor in tensors for entry in self._tokens if entry[0].ids is tensor]
        if tokens and name in ("embedding", "embedding_bag"):
            call = Call(self, func, name, False, args, kwargs)
            if isinstance(func, FunctionType):
                return self._decompose(func, call)
            return REGISTRY[name].handler(call, *args, **kwargs)
        # Without need for no_grad none is entered: autograd forbids writing to views that were made in it.
        parameters = any(t.requires_grad for t in tensors)
        with torch.no_grad() if parameters else contextlib.nullcontext():
            out = func(*args, **kwargs)
        if tokens and (name in CASTS or not any(t.is_floating_point() for t in tensors_in(out))):
            (first, given), entry = tokens[0], REGISTRY.get(name)
            carrier = entry is not None and entry.kind == "carrier" and name not in CASTS
            others = [other for other, of in tokens[1:] if of is given]
            after = first.after(func, name, carrier, inplace, args, kwargs, out, others)
            # The latest is found first: in place, it stands for the same tensor.
            self._tokens[:0] = [(made, given) for made in after]
        return out

    def _decompose(self, func: FunctionType, call: Call) -> Any:
        """Run a Python function of torch's so that the calls inside it are seen."""
        if func in self._decomposing:
            return self._unknown(call)
        self._decomposing.append(func)
        try:
            with self:
                return functions.body(func)(*call.args, **call.kwargs)
        finally:
            self._decomposing.pop()

    def _unknown(self, call: Call) -> Any:
        """A function that is not registered: harmless if nothing it returns could carry relevance."""
        if call.name in metadata.LEAVES_TORCH:
            call.refuse("the values leave torch here, and relevance with them. Write this step with torch functions")
            return call.func(*map_tensors(call.args, Tensor.detach), **call.kwargs)
        if call.name in metadata.PYTHON_VALUES:
            self.notes[
                f"a value was read by {call.title} in "
                f"{call.where}; what is computed from that number counts as constant"
            ] = None
            return call.func(*map_tensors(call.args, Tensor.detach), **call.kwargs)
        try:
            out = call.run()
        except RuntimeError:  # no derivative with respect to a live argument
            call.refuse("autograd has no derivative for it. Write it with other torch functions")
            return call.run(map_tensors(call.args, Tensor.detach), map_tensors(call.kwargs, Tensor.detach))
        results = tensors_in(out)
        carrying = [t for t in results if t.is_floating_point() or t.is_complex()]
        if carrying:
            call.refuse(
                metadata.NOT_YET.get(call.name)
                or "no operation describes it. Write it with functions that relprop knows; or, if it only moves values "
                '(kind="carrier"), works element by element ("activation"), is linear without weights ("sum"), picks a '
                f'winner ("selection") or counts as constant, say so once: relprop.register("{call.name}", kind=...)'
            )
            op = call.begin("unsupported")
            call.end(op, out)
        return out

    def refuse(self, function: str, module: str, advice: str) -> None:
        """Note an unsupported function; all of them are reported together at the end of the forward pass."""
        problem = Unsupported(function, module, advice)
        if problem not in self.unsupported:
            self.unsupported.append(problem)

    def raise_unsupported(self) -> None:
        """Raise what `refuse` has collected."""
        if self.unsupported:
            listed = "\n".join(f"  - {problem}" for problem in self.unsupported)
            count = len(self.unsupported)
            raise UnsupportedFunction(f"{count} function{'s' * (count > 1)} would lose relevance:\n{listed}")

    def close(self) -> None:
        """Let go of the recorded graph, which refers to itself in ways that only this undoes."""
        for op in self.operations:
            op.sources, op.z = (), None
            op.watchers.clear()
        for record in self.affine.values():
            record.release()
        for layer in self.recurrent:
            layer.release()
        for store in (
            self.affine,
            self.recurrent,
            self.derived_weights,
            self.nodes,
            self._known,
            self._foreign,
            self._kept,
        ):
            store.clear()
        self._tokens.clear()
        self.inputs.clear()


def _value_of(kept: Kept) -> Tensor:
    return kept.value


def _ordinary(tensor: Tensor) -> Tensor:
    """A tensor that autograd may save, also of one that was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor


def _is_view_node(grad_fn: Any) -> bool:
    return grad_fn.name().split("::")[-1].removesuffix("0").removesuffix("Backward") in _VIEW_NODES


def _function_of(grad_fn: Any) -> str:
    """An autograd function's name as its author knows it."""
    if isinstance(grad_fn, torch.autograd.function.BackwardCFunction):
        return f"the custom autograd Function {type(grad_fn).__name__.removesuffix('Backward')}"
    return f"the autograd function {grad_fn.name()}"


def _is_leaf(func: FunctionType) -> bool:
    """Python functions of torch's that only choose between two others, and would choose for ever."""
    return func.__qualname__.startswith("boolean_dispatch")
