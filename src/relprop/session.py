"""A session: one recorded forward pass, and the backward passes that are asked of it."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

import relprop.engine  # noqa: F401  (registers the operations)
from relprop import targets
from relprop.asking import finite
from relprop.conservation import OperationFlow
from relprop.engine import custom
from relprop.engine.operation import Flow, Operation
from relprop.engine.tokens import at_input
from relprop.engine.trace import Trace
from relprop.errors import InvalidInput, InvalidOutput, InvalidTarget, NonFinite
from relprop.inputs import Inputs, input_name, integer_input, misread_ids
from relprop.models.prepare import blocks, named_modules, parts_of_sequences
from relprop.presets import choose
from relprop.rulemap import RuleMap
from relprop.rules import Epsilon
from relprop.targets import Target

Seed = Literal["score"] | Tensor


@dataclass(frozen=True)
class Start:
    """What is redistributed: a tensor of the trace, v = R / value there, and the sum for each sample.

    index: the class of each sample, (batch,), if a class's score is explained.
    """

    tensor: Tensor
    v: Tensor
    score: Tensor
    index: Tensor | None


class Session:
    """One forward pass and what is asked of it."""

    def __init__(self, model: Callable[..., Any], trace: Trace, x: Inputs, layers: Sequence[str]) -> None:
        self.trace = trace
        self.x = x
        self.layers: dict[str, Tensor] = {}
        wanted = _modules_named(model, layers)
        parts = {} if trace.attention is None else parts_of_sequences(model)
        with _watched(trace, {**parts, **wanted}, self.layers), custom.eager(), custom.seen(), trace:
            self.output = self._run(model)
        self.model_end = len(trace.operations)
        for name in [layers] if isinstance(layers, str) else layers:
            if not any(each in self.layers for each in ([name] if name in wanted else fnmatch.filter(wanted, name))):
                raise InvalidInput(f"layers: the module {name!r} was not called, or nothing live came out of it")
        chosen = blocks(parts, [op.module for op in trace.operations if op.kind == "attention"])
        for name in [name for name in parts if name not in chosen and name not in wanted]:
            self.layers.pop(name, None)
        # Blocks in torch's own order, (tokens, batch, width), are told batch first, as attention is.
        self._turned = {name for name in chosen if name not in wanted and _sequence_first(parts[name])}
        self.batch = next(t.shape[0] for t in _tensors(x))

    def _run(self, model: Callable[..., Any]) -> Any:
        trace, x = self.trace, self.x
        try:
            if isinstance(x, Tensor):
                return model(trace.enter(None, x))
            if isinstance(x, dict):
                return model(**{k: trace.enter(k, v) if isinstance(v, Tensor) else v for k, v in x.items()})
            return model(*(trace.enter(i, v) if isinstance(v, Tensor) else v for i, v in enumerate(x)))
        except (RuntimeError, IndexError) as error:
            understood = misread_ids(trace, error)
            if understood is None and isinstance(error, RuntimeError):
                unembedded = trace.inputs and not any(given.leaves for given in trace.inputs)
                understood = integer_input(trace) if unembedded else _dtype_mismatch(model, trace)
            if understood is None:
                raise
            raise understood from error

    @property
    def used(self) -> list[Any]:
        """The inputs that relevance is reported for."""
        return [given for given in self.trace.inputs if given.leaves]

    def start(self, target: Target, seed: Seed, labels: Sequence[str] | None) -> Start:
        """Where relevance starts from: a target's score, or a seed of relevance at the model's output."""
        if not self.used:
            raise integer_input(self.trace)
        if isinstance(seed, str) and seed == "score":
            score, index = targets.select(self.trace, self.output, target, labels, self.batch)
            self.trace.raise_unsupported()
            targets.require_finite(score)
            return Start(self._as_operand(score), torch.ones_like(score), score.detach(), index)
        if not isinstance(seed, Tensor):
            raise InvalidTarget(f'seed: got {seed!r}, expected "score" or a tensor shaped like the model\'s output')
        return self._seeded(seed)

    def _seeded(self, seed: Tensor) -> Start:
        output = targets.before_squash(self.trace, targets.scores_of(self.trace, self.output))
        if output.shape != seed.shape:
            raise InvalidTarget(
                f"the seed has shape {tuple(seed.shape)}, the model's output {tuple(output.shape)}; they must agree"
            )
        if not bool(torch.isfinite(seed).all()):
            raise NonFinite("the seed holds NaN or infinity; give the relevance to start from")
        value, seed = output.detach(), seed.detach().to(output)
        if bool(((value == 0) & (seed != 0)).any()):
            raise InvalidTarget("the seed gives relevance to an output whose value is zero, which nothing explains")
        total = seed.flatten(1).sum(1) if seed.dim() > 1 else seed
        v = torch.where(value == 0, torch.zeros_like(seed), seed / value)
        return Start(self._as_operand(output), v, total, None)

    def _as_operand(self, tensor: Tensor) -> Tensor:
        """The tensor, used once more by the trace, which keeps an operation's value when it is first used."""
        with self.trace:
            return tensor.view_as(tensor)

    def redistribute(self, start: Start, chosen: RuleMap | None, *, last: bool = False) -> tuple[list[Tensor], str]:
        """(relevance of each used input, name of the rules), by one backward pass.

        last: nothing more will be asked of this session, so that each value is let go of once it has been used.
        """
        operations = self._operations(start)
        kinds = {op.kind for op in operations}
        if "softmax" in kinds and "attention" not in kinds:
            self.trace.notes[
                "a softmax is part of what is explained; it shares by AttnLRP's rule, which need not conserve"
            ] = None
        chosen = chosen if chosen is not None else choose(operations)
        self.trace.run.rules = chosen.assign(operations, self.trace.operations)
        for op in operations:
            op.flow = Flow()
        if self.trace.attention is not None:
            self.trace.attention.clear()
        for name in self.layers:
            self.layers[name] = torch.zeros_like(self.layers[name])
        leaves = [leaf for given in self.used for leaf in given.leaves]
        self.trace.run.last = last
        collected = torch.autograd.grad(start.tensor, leaves, start.v, retain_graph=not last, allow_unused=True)
        by_leaf = dict(zip(map(id, leaves), collected, strict=True))
        if all(r is None for r in collected):
            raise InvalidOutput("the score does not depend on the input: nothing arrived there")
        relevance = []
        for given in self.used:
            arrived = [torch.zeros_like(leaf) if (r := by_leaf[id(leaf)]) is None else r for leaf in given.leaves]
            if given.tokens:
                shape = given.tensor.shape
                arrived = [at_input(r.sum(-1), places, shape) for r, places in zip(arrived, given.places, strict=True)]
            relevance.append(sum(arrived[1:], arrived[0]).detach())
        for given, r in zip(self.used, relevance, strict=True):
            if not finite(r):
                raise NonFinite(
                    f"the relevance of {input_name(given.key)} overflowed under the rules {chosen}, or met a value "
                    "in the network that is no number. Use a stabiliser (Epsilon(1e-3)), or a wider dtype "
                    "(model.double(), x.double()); in attention mask with torch.finfo(dtype).min, not with -inf, "
                    "where a row may be masked as a whole"
                )
        return relevance, str(chosen)

    def flows(self, start: Start) -> tuple[OperationFlow, ...]:
        """What each operation received and passed on in the last backward pass."""
        rules = self.trace.run.rules
        return tuple(
            flow_of(op, rules)
            for op in self._operations(start)
            # Picking the target's score out of the output is no step of the model.
            if op.kind != "input" and not (op.kind == "carrier" and op.index >= self.model_end)
        )

    def _operations(self, start: Start) -> list[Operation]:
        node = self.trace.node(start.tensor)
        assert node is not None
        return _reachable(node.operation)

    def relevance_of_layers(self) -> dict[str, Tensor]:
        """The relevance at the outputs of the modules asked for, and of blocks, as the last backward pass found it."""
        return {name: r.transpose(0, 1) if name in self._turned else r for name, r in self.layers.items()}

    def attention(self) -> dict[str, Tensor]:
        """What the last backward pass took from token to token, (batch, heads, queries, keys) by name of the module, or
        "attention" at the top of forward; a second one in the same module is "name 2"."""
        found: dict[str, Tensor] = {}
        times: Counter[str] = Counter()
        for index, passed in sorted((self.trace.attention or {}).items()):
            module = self.trace.operations[index].module or "attention"
            times[module] += 1
            found[module if times[module] == 1 else f"{module} {times[module]}"] = _by_heads(passed, self.batch)
        return found

    def structured(self, values: list[Tensor]) -> Any:
        """Values of the used inputs in the form in which the inputs were given."""
        return structured(self.x, [given.key for given in self.used], values)


def _sequence_first(block: nn.Module) -> bool:
    """Whether a block attends by a module of torch's that takes (tokens, batch, width)."""
    inside = [module for module in block.modules() if isinstance(module, nn.MultiheadAttention)]
    return bool(inside) and not any(module.batch_first for module in inside)


def _by_heads(passed: Tensor, batch: int) -> Tensor:
    """(batch, heads, queries, keys), where heads or windows may stand beside the samples or apart."""
    lead, pairs = passed.shape[:-2], passed.shape[-2:]
    whole = math.prod(lead) % batch == 0
    return passed.reshape(batch, -1, *pairs) if whole else passed.reshape(1, -1, *pairs)


def structured(x: Inputs, keys: Sequence[Any], values: Sequence[Tensor]) -> Any:
    """Values of the inputs with these keys in the form of all inputs, x."""
    if isinstance(x, Tensor):
        return values[0]
    if isinstance(x, dict):
        return dict(zip(keys, values, strict=True))
    return tuple(values)


def detached(value: Any) -> Any:
    """An output without its graph, in the same structure."""
    if isinstance(value, Tensor):
        return value.detach()
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: detached(getattr(value, f.name)) for f in fields(value) if f.init}
        return replace(value, **changed)
    if isinstance(value, dict):
        items = {k: detached(v) for k, v in value.items()}
        return items if type(value) is dict else type(value)(**items)
    if isinstance(value, (list, tuple)):
        items_ = [detached(v) for v in value]
        return type(value)(*items_) if hasattr(value, "_fields") else type(value)(items_)
    return value


def _reachable(last: Operation) -> list[Operation]:
    """The operations between the input and a score, in forward order; marks the last affine ones."""
    seen: dict[int, Operation] = {}
    stack = [last]
    while stack:
        op = stack.pop()
        if op.index not in seen:
            seen[op.index] = op
            stack += [node.operation for node in op.sources]
    ordered = [seen[index] for index in sorted(seen)]
    before_affine: set[int] = set()
    for op in reversed(ordered):
        op.last = op.affine and op.index not in before_affine
        if op.affine or op.index in before_affine:
            before_affine.update(node.operation.index for node in op.sources)
    return ordered


def flow_of(op: Operation, rules: Mapping[int, Any]) -> OperationFlow:
    absorbed = dict(op.flow.absorbed)
    rest = op.flow.received - op.flow.passed - sum(absorbed.values())
    if rest:
        size = abs(op.flow.received) + abs(op.flow.passed)
        # A recurrent layer's stabilisers aren't counted one by one; they are small, and yet no rounding.
        least = 1e-8 if op.kind == "recurrent" and isinstance(rules.get(op.index), Epsilon) else 1e-5
        cause = op.remainder if abs(rest) > least * size else "rounding"
        absorbed[cause] = absorbed.get(cause, 0.0) + rest
    rule = repr(rules[op.index]) if op.index in rules else ""
    return OperationFlow(op.index, op.function, op.module, op.kind, rule, op.flow.received, op.flow.passed, absorbed)


def _modules_named(model: Callable[..., Any], names: Sequence[str]) -> dict[str, nn.Module]:
    """The modules with these names, or names that fit these patterns."""
    modules = {name: module for module, name in named_modules(model)}
    found = {}
    for name in [names] if isinstance(names, str) else names:
        fitting = [name] if name in modules else fnmatch.filter(modules, name)
        if not fitting:
            close = difflib.get_close_matches(name, modules, n=3)
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise InvalidInput(f"layers: the model has no module named {name!r}.{hint}")
        found.update({each: modules[each] for each in fitting})
    return found


@contextlib.contextmanager
def _watched(trace: Trace, modules: Mapping[str, nn.Module], found: dict[str, Tensor]) -> Iterator[None]:
    """Collect the relevance at the outputs of these modules, through hooks that are gone afterwards."""
    handles = [module.register_forward_hook(_collector(trace, name, found)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _collector(trace: Trace, name: str, found: dict[str, Tensor]) -> Callable[..., None]:
    thread = threading.get_ident()

    def collect(module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() == thread:
            with torch._C.DisableTorchFunction():  # what follows is no part of the model
                watch(next((t for t in _tensors(output) if trace.node(t) is not None), None))

    def watch(tensor: Tensor | None) -> None:
        if tensor is None:
            return
        if name in found and found[name].shape != tensor.shape:
            raise InvalidInput(f"layers: the module {name!r} is called with different shapes; its relevances can't add")
        found[name] = torch.zeros_like(tensor.detach())

        def notify(relevance: Tensor) -> None:
            if name in found:
                found[name] = found[name] + relevance

        trace.watch(tensor, notify)
        node = trace.node(tensor)
        assert node is not None
        node.operation.watchers.append(notify)

    return collect


@contextlib.contextmanager
def released_buffers(model: Callable[..., Any]) -> Iterator[None]:
    """Buffers that the model itself writes to keep what it wrote, but not the graph that was recorded of it."""
    buffers = list(model.buffers()) if isinstance(model, nn.Module) else []
    plain = [buffer for buffer in buffers if not buffer.requires_grad]
    try:
        yield
    finally:
        for buffer in plain:
            if buffer.requires_grad:
                buffer.detach_()


def _dtype_mismatch(model: Callable[..., Any], trace: Trace) -> InvalidInput | None:
    """Why a forward pass may have failed: floating-point inputs of another type than the model's parameters."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    expected = next((p.dtype for p in parameters if p.is_floating_point()), None)
    for given in trace.inputs:
        found = given.tensor.dtype
        if expected is not None and found.is_floating_point and found != expected:
            return InvalidInput(
                f"{input_name(given.key)} is of {found}, the model's parameters of {expected}. Write x.to({expected})"
            )
    return None


def _tensors(value: Any) -> list[Tensor]:
    return [t for _, t in targets.parts(value)]
