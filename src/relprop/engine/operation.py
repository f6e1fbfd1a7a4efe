"""What the trace remembers: operations, the tensors they made, and the values that rules will need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from relprop.errors import RelpropError
from relprop.rules import Rule


class Kept:
    """A value that a later backward pass needs, kept outside autograd and safe from in-place changes."""

    __slots__ = ("__weakref__", "_tensor", "_version")

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach()
        self._version = self._tensor._version

    @property
    def value(self) -> Tensor:
        if self._tensor._version != self._version:
            raise RelpropError(
                "a value that relevance depends on was overwritten in place, by code that the trace could not see "
                "(a C++ extension, or .data). Please replace that in-place call by its out-of-place form"
            )
        return self._tensor

    @property
    def place(self) -> int:
        """Which memory it is in."""
        place: int = self._tensor.untyped_storage()._cdata
        return place

    def preserve(self) -> None:
        """Move to memory of its own, because the shared one is about to be overwritten."""
        self._tensor = self._tensor.clone()
        self._version = self._tensor._version

    def accept_change(self) -> None:
        """Take the overwritten value for the value (after a ReLU: where it cut, nothing arrives)."""
        self._version = self._tensor._version


@dataclass
class Flow:
    """Relevance received and passed on by one operation in one backward pass, summed over the batch."""

    received: float = 0.0
    passed: float = 0.0
    absorbed: dict[str, float] = field(default_factory=dict)

    def absorb(self, cause: str, amount: float) -> None:
        if amount:
            self.absorbed[cause] = self.absorbed.get(cause, 0.0) + amount


def inner(a: Tensor, b: Tensor) -> float:
    """sum_i a_i b_i (of complex numbers, the real part of a conj(b)); -inf in a mask, where nothing arrives, counts as
    nothing."""
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    product = a.double() * b.double()
    return float(torch.where(b == 0, 0.0, product).sum())


@dataclass
class Run:
    """The state of one backward pass, shared by the operations of a trace: which rule where, and whether it is the
    last one, after which no value is needed again."""

    rules: dict[int, Rule] = field(default_factory=dict)
    last: bool = False


@dataclass(eq=False)
class Operation:
    """One function call that relevance flows through.

    `depth` counts the affine operations on the longest way from the input up to and including this one.
    """

    index: int
    kind: str
    function: str
    module: str
    module_type: type | None
    run: Run
    sources: tuple[Node, ...] = ()
    affine: bool = False
    # Whether it is the last affine operation on every way to the score; known when a score is chosen.
    last: bool = False
    shape: tuple[int, ...] = ()
    # Why relevance that neither a rule nor a stabiliser took is missing, in the words of the report.
    remainder: str = "other"
    z: Kept | None = None
    keeps_output: bool = False
    flow: Flow = field(default_factory=Flow)
    # The function's one name for all its spellings.
    name: str = ""
    watchers: list[Callable[[Tensor], None]] = field(default_factory=list)
    # Tells the order in which a carrier puts its one source's axes, if that is all it does.
    permutation: Callable[[], tuple[int, ...]] | None = None
    # Whether it adds up products of gates and signals, as a recurrent cell does.
    cell: bool = False
    # Of a joint operation: the modules of its other summands.
    other_modules: list[tuple[str, type | None]] = field(default_factory=list)

    @property
    def depth(self) -> int:
        return self._depth

    def __post_init__(self) -> None:
        self._depth = max((node.operation.depth for node in self.sources), default=0) + int(self.affine)

    @property
    def modules(self) -> list[tuple[str, type | None]]:
        """(dotted name, type) of the modules it belongs to: one, but for joint operations."""
        return [(self.module, self.module_type), *self.other_modules]

    @property
    def first(self) -> bool:
        """Whether it is the first affine operation on every way from the input."""
        return self.affine and self._depth == 1

    @property
    def rule(self) -> Rule:
        return self.run.rules[self.index]

    def output(self) -> Kept:
        """The kept output z."""
        if self.z is None:
            raise RelpropError(f"relevance arrived at {self.where}, which did not keep its output; please report this")
        return self.z

    @property
    def where(self) -> str:
        """The operation in words, for messages."""
        return f"{self.function} in module '{self.module}'" if self.module else self.function


@dataclass(eq=False)
class Node:
    """The provenance of one tensor: the operation that made it, and what is known of its values.

    role: "gate" (sigmoid), "attention" (softmax), "statistic" (std, norm, rsqrt), "squash" (tanh, erf: a gate
    once a constant is added), "plus three" (x + 3: a gate once relu6 is taken, the hard sigmoid by hand) or None.
    path: its relevance path, where one was asked for. replay: how to compute it again, near the input.
    unsquashed: the tensor before a final softmax or sigmoid, as far as this one only rearranges what came out of it.
    part: how to take it from a linear operation's output, if it is a part of one; gated: (gate, signal's node) if it is
    a gate times (a part of) a linear operation's output, (product, None) if it is a gate times a constant.
    """

    operation: Operation
    role: str | None = None
    shape: tuple[int, ...] = ()
    device: torch.device | None = None
    # The node of which this one is a function, element by element, as far as that is known; whether an activation is
    # part of that function.
    function_of: Node | None = None
    activated: bool = False
    consumers: int = 0
    # Whether a ReLU used it; whether no value can be below zero, as far as the operations tell.
    rectified: bool = False
    nonnegative: bool = False
    path: Tensor | None = None
    replay: Replay | None = None
    unsquashed: Tensor | None = None
    part: Replay | None = None
    # The gate, if it is a gate times a signal.
    gate: Node | None = None
    # z, and its version, if it is exp(z).
    exponent: tuple[Tensor, int] | None = None
    gated: tuple[Kept, Node | None] | None = None

    @property
    def role_after_activation(self) -> str | None:
        """The role of an activation's result: a clamped or squared statistic stays one."""
        return self.role if self.role == "statistic" else None


@dataclass(frozen=True)
class Replay:
    """function(*args, **kwargs) with nodes in place of live tensors, to be computed again from other values."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: int = 0

    def __call__(self, value_of: Callable[[Node], Tensor]) -> Tensor:
        def value(item: Any) -> Any:
            return value_of(item) if isinstance(item, Node) else item

        result = self.function(*map_leaves(self.args, value), **map_leaves(self.kwargs, value))
        return tensors_in(result)[self.output]


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with everything in it that is no list, tuple or dict replaced by change(it)."""
    if isinstance(value, dict):
        return {key: map_leaves(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        items = [map_leaves(item, change) for item in value]
        if hasattr(value, "_fields"):
            return type(value)(*items)
        return type(value)(items) if type(value) in (list, tuple) else items
    return change(value)


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """`value` with every tensor in it (lists, tuples and dicts included) replaced by change(tensor)."""
    return map_leaves(value, lambda item: change(item) if isinstance(item, Tensor) else item)


def tensors_in(*values: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and dicts, in order."""
    found: list[Tensor] = []
    _collect(values, found)
    return found


def _collect(values: Iterable[Any], found: list[Tensor]) -> None:
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            _collect(value, found)
        elif isinstance(value, dict):
            _collect(value.values(), found)
        elif isinstance(value, slice):
            _collect((value.start, value.stop, value.step), found)
