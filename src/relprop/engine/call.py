"""One intercepted function call, and the means to run and record it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from relprop.engine import functions
from relprop.engine.operation import Kept, Node, Operation, Replay, inner, map_tensors, tensors_in
from relprop.engine.path import Shares, relevance_path, through
from relprop.errors import UnsupportedFunction
from relprop.rules.base import in_pieces, weigh

if TYPE_CHECKING:
    from relprop.engine.trace import Trace


# In-place calls that change the form of their target, and no value.
_RESHAPED = {"transpose", "t", "squeeze", "unsqueeze", "swapaxes", "swapdims", "as_strided", "requires_grad"}

_SQUASHES = {"sigmoid", "hardsigmoid", "softmax", "log_softmax"}

# What they return is never below zero; or is not, where nothing that they are given is.
_NONNEGATIVE = {"relu", "relu6", "sigmoid", "hardsigmoid", "softmax", "abs", "square", "exp", "exp2"}
_KEEPS_SIGN = {
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "clone",
    "chunk", "split", "dropout", "feature_dropout", "max_pool1d", "max_pool2d", "max_pool3d",
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "mean", "sum",
}  # fmt: skip

# Element by element, as long as one argument is a constant.
_POINTWISE = {"add", "sub", "rsub", "neg", "mul", "div"}


def on_gradient(tensor: Tensor, hook: Callable[[Tensor], Tensor | None]) -> None:
    """Call hook(v) with what arrives at a tensor in each backward pass; what it returns, if anything, replaces v."""
    # Where a rule gave relevance itself, nothing arrives per unit of value, and autograd says so with None.
    tensor.register_hook(lambda v: None if v is None else hook(v))  # type: ignore[no-untyped-call]


class _Edge(torch.autograd.Function):
    """The same tensor; backward, what share(v) makes of what arrives. Where that is None, nothing before it is run."""

    @staticmethod
    def forward(ctx: Any, share: Callable[[Tensor], Tensor | None], tensor: Tensor) -> Tensor:
        ctx.share = share
        ctx.set_materialize_grads(False)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[None, Tensor | None]:
        return None, None if v is None else ctx.share(v)


class Call:
    """One intercepted function call, and the means to record it."""

    __slots__ = ("_place", "args", "func", "functional", "inplace", "kwargs", "name", "trace")

    def __init__(
        self, trace: Trace, func: Any, name: str, inplace: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.trace = trace
        self.func = func
        self.name = name
        self.inplace = inplace
        # Whether an in-place call is computed out of place and written back.
        self.functional = False
        self.args = args
        self.kwargs = kwargs
        self._place: tuple[str, type | None] | None = None

    @property
    def place(self) -> tuple[str, type | None]:
        """(dotted name, type) of the module that made the call."""
        if self._place is None:
            self._place = self.trace.current_module()
        return self._place

    @property
    def title(self) -> str:
        return functions.display_name(self.func)

    @property
    def where(self) -> str:
        return f"module '{self.place[0]}'" if self.place[0] else "forward"

    def refuse(self, advice: str) -> None:
        self.trace.refuse(self.title, self.place[0], advice)

    def live(self, value: Any) -> bool:
        """Whether an argument is a tensor that depends on the input."""
        return isinstance(value, Tensor) and self.trace.node(value) is not None

    def node(self, tensor: Tensor) -> Node:
        """The provenance of a live tensor."""
        node = self.trace.node(tensor)
        assert node is not None
        return node

    def common_role(self) -> str | None:
        """The role of the live arguments, if they have one in common."""
        roles = {self.node(t).role for t in self.trace.live(self.args, self.kwargs)}
        return roles.pop() if len(roles) == 1 else None

    def run(self, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None) -> Any:
        """The function itself, out of place."""
        func = functions.out_of_place(self.func) if self.inplace else self.func
        if func is None:
            raise UnsupportedFunction(f"{self.title} in {self.where} has no out-of-place form; use one")
        return func(*(self.args if args is None else args), **(self.kwargs if kwargs is None else kwargs))

    def begin(
        self, kind: str, sources: Iterable[Tensor] | None = None, *, affine: bool = False, remainder: str = "other"
    ) -> Operation:
        """A new operation fed by these live tensors (default: all live arguments)."""
        trace = self.trace
        if sources is None:
            sources = trace.live(self.args, self.kwargs)
        nodes = []
        for tensor in sources:
            node = self.node(tensor)
            node.consumers += 1
            self._keep_output(node.operation, tensor)
            nodes.append(node)
        op = Operation(
            len(trace.operations), kind, self.title, *self.place, trace.run, tuple(nodes), affine, remainder=remainder
        )
        op.name = self.name
        trace.operations.append(op)
        return op

    def _keep_output(self, made_by: Operation, tensor: Tensor) -> None:
        """Keep an operation's output when it is first used, if its backward pass needs it."""
        if made_by.keeps_output and made_by.z is None:
            made_by.z = self.trace.keep(tensor)

    def end(self, op: Operation, out: Any, role: str | None = None, paths: Paths | None = None) -> Any:
        """Register an operation's outputs, and what is to be done when relevance arrives at them."""
        results = [t for t in tensors_in(out) if t.grad_fn is not None]
        for i, tensor in enumerate(results):
            op.shape = tuple(tensor.shape)
            node = Node(op, role, tuple(tensor.shape), tensor.device)
            pointwise = op.kind == "activation" or (op.name in _POINTWISE and not op.affine)
            if pointwise and len(op.sources) == 1:
                node.function_of = op.sources[0].function_of or op.sources[0]
                node.activated = op.kind == "activation" or op.sources[0].activated
            if paths is not None:
                paths.attach(node, tensor, i)
            node.nonnegative = self._nonnegative(op)
            self.trace._register(op, tensor, node)
            if self.trace.report and not op.affine:
                on_gradient(tensor, partial(_receive, op, self.trace.keep(tensor)))
            if op.keeps_output and not op.affine:
                on_gradient(tensor, partial(_stabilise, op, self.trace.report))
        return out

    def _nonnegative(self, op: Operation) -> bool:
        if op.name in _NONNEGATIVE:
            return True
        added = op.name == "add" and not op.affine and len(op.sources) == 2 and self.kwargs.get("alpha", 1) > 0
        return (added or op.name in _KEEPS_SIGN) and all(source.nonnegative for source in op.sources)

    def paths(
        self,
        op: Operation,
        args: tuple[Any, ...],
        *,
        moves: bool = False,
        passes: tuple[Tensor, ...] = (),
        shares: Shares | None = None,
    ) -> Paths | None:
        """What the relevance paths of the outputs will need, taken before anything is overwritten.

        Kept near the input, where rules may ask for it, and everywhere when the rule maps say so.
        """
        trace = self.trace
        func = functions.out_of_place(self.func) if self.inplace else self.func
        if func is None or not (trace.paths_everywhere or op.depth == 0):
            return None
        nodes = Replay(
            func,
            map_tensors(args, lambda t: trace.node(t) or t),
            map_tensors(self.kwargs, lambda t: trace.node(t) or t),
        )
        moved: list[Tensor] = []
        if moves:
            path_of = partial(_path_if_live, trace)
            moved = tensors_in(func(*map_tensors(args, path_of), **map_tensors(self.kwargs, path_of)))
            moved = [t for t in moved if t.requires_grad]
        return Paths(nodes, moved, [relevance_path(trace, t) for t in passes], shares)

    def tap(self, op: Operation, tensor: Tensor) -> Tensor:
        """The tensor, or, when a report is made, a view of it that measures what the operation passes to it."""
        if not self.trace.report or self.trace.node(tensor) is None:
            return tensor
        view = tensor.view_as(tensor)
        on_gradient(view, partial(_pass, op, self.trace.keep(tensor)))
        return view

    def edge(self, tensor: Tensor, made: list[Operation], share: Callable[[Tensor], Tensor | None]) -> Tensor:
        """A live tensor by another way, on which share(v) is what this call alone, the one operation in `made`, passes
        to it; None for nothing."""
        kept = self.trace.keep(tensor) if self.trace.report else None

        def measured(v: Tensor) -> Tensor | None:
            shared = share(v)
            if kept is not None and shared is not None:
                made[0].flow.passed += inner(kept.value, shared)
            return shared

        alias: Tensor = _Edge.apply(measured, tensor)  # type: ignore[no-untyped-call]
        self.trace._register(self.node(tensor).operation, alias, self.node(tensor))
        return alias

    def native(
        self,
        kind: str,
        args: tuple[Any, ...] | None = None,
        *,
        role: str | None = None,
        remainder: str = "other",
        stabilised: bool = False,
        moves: bool = False,
        passes: tuple[Tensor, ...] = (),
        shares: Shares | None = None,
        measured: bool = False,
    ) -> Any:
        """Run the call as torch does, with torch's own backward, and record it.

        stabilised: its share is divided by (z + eps s(z)) when the rule map gives it an eps. moves: its relevance
        moves as its values do. passes: the inputs to which relevance passes element by element, in equal parts, or
        those that shares() gives. measured: what it passes on is measured by the caller, if a report is made.
        """
        trace = self.trace
        args = self.args if args is None else args
        op = self.begin(kind, trace.live(args, self.kwargs), remainder=remainder)
        op.keeps_output = stabilised
        paths = self.paths(op, args, moves=moves, passes=passes, shares=shares)
        if self.inplace and not self.functional:
            out = self._overwrite(op, args)
        else:
            if trace.report and not measured:
                tap = partial(self.tap, op)
                args, self.kwargs = map_tensors(args, tap), map_tensors(self.kwargs, tap)
            out = self.run(args)
        results = [t for t in tensors_in(out) if t.is_floating_point() or t.is_complex()]
        if results and all(t.grad_fn is None for t in results):
            self.refuse("autograd has no derivative for it, so relevance would end here unseen")
        return self.end(op, out, role, paths)

    def _overwrite(self, op: Operation, args: tuple[Any, ...]) -> Any:
        """Run an in-place function in place."""
        target: Tensor = args[0]
        spared = None
        alone = target._base is None and op.sources[0].consumers == 1 if op.sources else False
        if self.name == "relu" and alone and not self.trace.paths_everywhere:
            # A ReLU may overwrite z: where it cuts, nothing arrives (but on relevance paths).
            spared = op.sources[0].operation.z
        self.trace.before_overwrite(target, spared)
        self.func(*args, **self.kwargs)
        if spared is not None:
            spared.accept_change()
        self._keep_output(op, target)  # it may be used next by way of a view that was made before
        return target

    def squash(self, out: Tensor, before: Tensor) -> None:
        """Remember the tensor before a softmax or sigmoid, which is what is explained if that is the last step."""
        self.node(out).unsquashed = before

    def carry_unsquashed(self, out: Any) -> None:
        """After a rearrangement of a softmax's output: rearrange the tensor before the softmax alike, if asked."""
        live = self.trace.live(self.args, self.kwargs)
        before = self.node(live[0]).unsquashed
        results = [t for t in tensors_in(out) if self.trace.node(t) is not None]
        if before is None or len(live) != 1 or len(results) != 1 or self.inplace:
            return
        args = map_tensors(self.args, lambda t: before if t is live[0] else t)
        with self.trace:
            again = self.func(*args, **self.kwargs)
        self.node(results[0]).unsquashed = next(iter(tensors_in(again)))

    def preserve_target(self) -> None:
        """An in-place call whose operation must see what it reads, or what arrives at it, works on a copy."""
        target = self.args[0]
        if not isinstance(target, Tensor) or functions.out_of_place(self.func) is None or self.name in _RESHAPED:
            return
        node = self.trace.node(target)
        # What arrives at a view comes by way of its base, past the view itself and past what was hooked to it.
        # And what comes before a final sigmoid must outlive it.
        self.functional = self.trace.report or target._is_view() or self.name in _SQUASHES
        if node is not None and self.functional:
            copy = target.clone()
            self.trace._register(node.operation, copy, node)
            self.args = (copy, *self.args[1:])

    def write_back(self, target: Tensor, out: Tensor) -> Tensor:
        """Finish an in-place call that was computed out of place."""
        node = self.trace.node(out)
        if node is not None:
            self._keep_output(node.operation, out)
        self.trace.before_overwrite(target)
        if target._base is None and target.grad_fn is not None:
            target.detach_()  # else autograd would visit the overwritten value's history with zeros
        target.copy_(out)
        if node is not None:
            self.trace._register(node.operation, target, node)
        return target

    def decompose(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Let other functions do this call's work, each seen and recorded on its own."""
        with self.trace:
            return function(*args, **kwargs)

    def written_out(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As `decompose`, for a fused function: the value is that of the call itself, to the last bit."""
        out = self.decompose(function, *args, **kwargs)
        self.trace.before_overwrite(out)
        with torch.no_grad():
            out.detach().copy_(self.run(map_tensors(self.args, Tensor.detach), map_tensors(self.kwargs, Tensor.detach)))
        return out


@dataclass
class Paths:
    """The relevance paths of an operation's outputs in the making."""

    replay: Replay
    moved: list[Tensor]
    passed: list[Tensor]
    shares: Shares | None

    def attach(self, node: Node, output: Tensor, index: int) -> None:
        node.replay = replace(self.replay, output=index)
        node.path = self.moved[index] if self.moved else through(output, self.passed, self.shares)


def _path_if_live(trace: Trace, tensor: Tensor) -> Tensor:
    return relevance_path(trace, tensor) if trace.node(tensor) is not None else tensor


def _receive(op: Operation, value: Kept, v: Tensor) -> None:
    op.flow.received += inner(value.value, v)


def _pass(op: Operation, value: Kept, v: Tensor) -> None:
    op.flow.passed += inner(value.value, v)


def _stabilise(op: Operation, report: bool, v: Tensor) -> Tensor | None:
    """v z / (z + eps s(z)), for sums and normalisers."""
    eps, kept = op.rule.stabiliser(), op.output()
    if op.run.last:
        op.z = None
    if not eps:
        return None
    z = kept.value
    size = z.abs() if z.is_complex() else z
    stabilised = torch.empty_like(v)
    in_pieces(partial(weigh, eps), stabilised, v, size)
    if report:
        op.flow.absorb("stabiliser", inner(z, v - stabilised))
    return stabilised
