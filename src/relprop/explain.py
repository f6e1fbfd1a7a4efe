"""The front door: explain() for one call, Explainer for many inputs, check() for a report."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

import relprop.engine  # noqa: F401  (registers the operations)
from relprop import targets as targets_
from relprop.attribution import Attribution
from relprop.conservation import OperationFlow
from relprop.engine.operation import Flow, Operation
from relprop.engine.trace import Trace
from relprop.engine.weights import PreparedWeights
from relprop.errors import InvalidInput, InvalidOutput, InvalidTarget, NonFinite, RelpropError
from relprop.models import module_names, prepare, refuse_training
from relprop.presets import Bounds, Rules, choose, rule_map
from relprop.report import Report
from relprop.rulemap import RuleMap
from relprop.targets import Target

Seed = Literal["score"] | Tensor
Inputs = Tensor | tuple[Any, ...] | list[Any] | dict[str, Any]


def explain(
    model: Callable[..., Any],
    x: Inputs,
    target: Target = None,
    *,
    targets: Sequence[Target] | None = None,
    rules: Rules = "auto",
    bounds: Bounds | None = None,
    seed: Seed = "score",
    layers: Sequence[str] = (),
    labels: Sequence[str] | None = None,
) -> Any:
    """Redistribute a model's score onto its input by Layer-wise Relevance Propagation.

    model: any PyTorch model in evaluation mode, or a function of tensors; it is not changed.
    x: the input, shape (batch, ...); a tuple for positional, a dict for named inputs.
    target: None (each sample's highest score), a class index or name, one per sample, or a function from the model's
        output to one score per sample, shape (batch,). targets=[...]: several, from one forward pass.
    rules: a preset's name, a rule, a RuleMap; "auto" decides from the model's operations.
    bounds: (low, high), the range of valid inputs: numbers, or tensors of shape (channels, 1, 1).
    seed: "score", or the relevance to start from, a tensor shaped like the model's output.
    layers: names of modules whose output's relevance is wanted too.
    labels: class names, default `model.labels` or `model.config.id2label` if the model has them.

    Returns an Attribution, or a list of them for targets=[...]. Raises children of relprop.errors.RelpropError.
    """
    explainer = Explainer(model, rules, bounds=bounds, labels=labels)
    return explainer(x, target, targets=targets, seed=seed, layers=layers)


def check(
    model: Callable[..., Any],
    x: Inputs,
    target: Target = None,
    *,
    rules: Rules = "auto",
    bounds: Bounds | None = None,
) -> Report:
    """Which operations a model consists of, which rule each gets, and where relevance is lost.

    Unsupported functions are listed, all of them, instead of raised. Arguments as for `explain`.
    """
    return Explainer(model, rules, bounds=bounds).check(x, target)


class Explainer:
    """Explains many inputs of one model; modified weights are prepared once.

    Arguments as for `explain`. Safe to use from several threads.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        rules: Rules = "auto",
        *,
        bounds: Bounds | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        self.model = prepare(model)
        self.bounds = _checked_bounds(bounds)
        self.rules = rules
        self.labels = tuple(labels) if labels is not None else _labels_of(self.model)
        self._prepared = PreparedWeights()
        self._map = rule_map(rules, self.bounds)

    def __call__(
        self,
        x: Inputs,
        target: Target = None,
        *,
        targets: Sequence[Target] | None = None,
        seed: Seed = "score",
        layers: Sequence[str] = (),
    ) -> Any:
        """An Attribution for `x`, or a list of them, one for each of `targets`. Arguments as for `explain`."""
        if targets is not None and target is not None:
            raise InvalidTarget("give target=... for one target or targets=[...] for several, not both")
        if targets is not None and not targets:
            raise InvalidTarget("targets=[] is empty; give at least one target, or leave it away")
        wanted = [target] if targets is None else list(targets)
        found = [row[0] for row in self._explain(x, wanted, [self._map], seed, layers)]
        return found[0] if targets is None else found

    def compare(
        self, x: Inputs, rules: Sequence[Rules], target: Target = None, *, layers: Sequence[str] = ()
    ) -> dict[str, Attribution]:
        """Several rule maps from one forward pass: {name of the preset or rule map: Attribution}."""
        maps = [rule_map(r, self.bounds) for r in rules]
        row = self._explain(x, [target], maps, "score", layers)[0]
        names = [r if isinstance(r, str) else str(m) for r, m in zip(rules, maps, strict=True)]
        return dict(zip(names, row, strict=True))

    def check(self, x: Inputs, target: Target = None) -> Report:
        """As relprop.check, for this explainer's model and rules."""
        with self._trace(x, [self._map], report=True) as session:
            if session.trace.unsupported:
                return self._unsupported(session)
            score, _ = session.select(target, self.labels)
            if session.trace.unsupported:
                return self._unsupported(session)
            relevance, name = session.redistribute(score, torch.ones_like(score), self._map)
            return Report(
                session.flows(score),
                (),
                tuple(session.trace.notes),
                rules=name,
                score=float(score.detach().double().sum()),
                relevance=sum(float(r.double().sum()) for r in relevance),
            )

    def _unsupported(self, session: _Session) -> Report:
        operations = tuple(_flow(op, {}) for op in session.trace.operations)
        return Report(operations, tuple(map(str, session.trace.unsupported)), tuple(session.trace.notes))

    def _explain(
        self,
        x: Inputs,
        targets: Sequence[Target],
        maps: Sequence[RuleMap | None],
        seed: Seed,
        layers: Sequence[str],
    ) -> list[list[Attribution]]:
        """Attributions by target and rule map, from one forward pass."""
        found = []
        with self._trace(x, maps, layers=layers) as session:
            session.trace.raise_unsupported()
            for target in targets:
                score, index = session.select(target, self.labels) if isinstance(seed, str) else session.seeded(seed)
                session.trace.raise_unsupported()
                targets_.require_finite(score)
                v = torch.ones_like(score) if isinstance(seed, str) else session.v_of_seed(seed)
                start = score if isinstance(seed, str) else session.scores
                row = []
                for chosen in maps:
                    relevance, name = session.redistribute(start, v, chosen)
                    row.append(
                        Attribution(
                            relevance=session.structured(relevance),
                            score=score.detach() if isinstance(seed, str) else _seed_sum(seed),
                            target=index,
                            output=_detached(session.output),
                            inputs=session.structured([i.tensor.detach() for i in session.used]),
                            rules=name,
                            labels=self.labels,
                            layers=dict(session.layers),
                            notes=tuple(session.trace.notes),
                            trace_flow=self._flow_later(x, target, chosen, seed, score.detach()),
                        )
                    )
                found.append(row)
        return found

    def _flow_later(
        self, x: Inputs, target: Target, chosen: RuleMap | None, seed: Seed, score: Tensor
    ) -> Callable[[], tuple[OperationFlow, ...]]:
        """The explanation once more, with figures for every operation: paid for only when looked at."""

        def flow() -> tuple[OperationFlow, ...]:
            with self._trace(x, [chosen], report=True) as session:
                if isinstance(seed, str):
                    again, _ = session.select(target, self.labels)
                    v = torch.ones_like(again)
                else:
                    again, v = session.scores, session.v_of_seed(seed)
                if isinstance(seed, str) and not torch.equal(again.detach(), score):
                    raise RelpropError(
                        "the model's score is not what it was when this was explained: the model or the input has "
                        "changed since. Explain again to see where relevance goes now"
                    )
                session.redistribute(again, v, chosen)
                return session.flows(again)

        return flow

    @contextlib.contextmanager
    def _trace(
        self, x: Inputs, maps: Sequence[RuleMap | None], *, report: bool = False, layers: Sequence[str] = ()
    ) -> Iterator[_Session]:
        """A recorded forward pass, whose graph is let go of at the end."""
        refuse_training(self.model)
        checked = _checked_inputs(x)
        everywhere = any(chosen is not None and chosen.needs_paths_everywhere for chosen in maps)
        trace = Trace(module_names(self.model), self._prepared, paths_everywhere=everywhere, report=report)
        try:
            with torch.inference_mode(False), torch.enable_grad():
                yield _Session(self.model, trace, checked, layers)
        finally:
            trace.close()


class _Session:
    """One forward pass and what is asked of it."""

    def __init__(self, model: Callable[..., Any], trace: Trace, x: Inputs, layers: Sequence[str]) -> None:
        self.trace = trace
        self.x = x
        self.layers: dict[str, Tensor] = {}
        with _watched(model, trace, layers, self.layers), _eager(), trace:
            self.output = self._run(model)
        self.model_end = len(trace.operations)
        self.batch = next(t.shape[0] for t in _tensors(x))
        self.scores: Tensor

    def _run(self, model: Callable[..., Any]) -> Any:
        trace, x = self.trace, self.x
        try:
            if isinstance(x, Tensor):
                return model(trace.enter(None, x))
            if isinstance(x, dict):
                return model(**{k: trace.enter(k, v) if isinstance(v, Tensor) else v for k, v in x.items()})
            return model(*(trace.enter(i, v) if isinstance(v, Tensor) else v for i, v in enumerate(x)))
        except RuntimeError as error:
            if not any(given.leaves for given in trace.inputs) and trace.inputs:
                raise _integer_input(trace) from error
            raise

    @property
    def used(self) -> list[Any]:
        """The inputs that relevance is reported for."""
        return [given for given in self.trace.inputs if given.leaves]

    def select(self, target: Target, labels: Sequence[str] | None) -> tuple[Tensor, Tensor | None]:
        """The score to explain, (batch,), and its class indices."""
        self._require_inputs()
        return targets_.select(self.trace, self.output, target, labels, self.batch)

    def seeded(self, seed: Tensor) -> tuple[Tensor, None]:
        """The output that a seed of relevance belongs to."""
        self._require_inputs()
        if not isinstance(seed, Tensor):
            raise InvalidTarget(f'seed: got {seed!r}, expected "score" or a tensor shaped like the model\'s output')
        found = targets_.before_squash(self.trace, targets_.scores_of(self.trace, self.output))
        if found.shape != seed.shape:
            raise InvalidTarget(
                f"the seed has shape {tuple(seed.shape)}, the model's output {tuple(found.shape)}; they must agree"
            )
        with self.trace:
            self.scores = found.view_as(found)
        return self.scores.detach().flatten(), None

    def v_of_seed(self, seed: Tensor) -> Tensor:
        """Relevance per unit of value at the output."""
        if not hasattr(self, "scores"):
            self.seeded(seed)
        value = self.scores.detach()
        seed = seed.to(value)
        if bool(((value == 0) & (seed != 0)).any()):
            raise InvalidTarget("the seed gives relevance to an output whose value is zero, which nothing explains")
        return torch.where(value == 0, 0, seed / value)

    def redistribute(self, start: Tensor, v: Tensor, chosen: RuleMap | None) -> tuple[list[Tensor], str]:
        """(relevance of each used input, name of the rules), by one backward pass."""
        node = self.trace.node(start)
        assert node is not None
        operations = _reachable(node.operation)
        chosen = chosen if chosen is not None else choose(operations)
        self.trace.run.rules = chosen.assign(operations)
        for op in operations:
            op.flow = Flow()
        for name in self.layers:
            self.layers[name] = torch.zeros_like(self.layers[name])
        leaves = [leaf for given in self.used for leaf in given.leaves]
        collected = torch.autograd.grad(start, leaves, v, retain_graph=True, allow_unused=True)
        by_leaf = dict(zip(map(id, leaves), collected, strict=True))
        if all(r is None for r in collected):
            raise InvalidOutput("the score does not depend on the input: nothing arrived there")
        relevance = []
        for given in self.used:
            arrived = [torch.zeros_like(leaf) if (r := by_leaf[id(leaf)]) is None else r for leaf in given.leaves]
            if given.tokens:
                arrived = [r.sum(-1) for r in arrived]
            relevance.append(sum(arrived[1:], arrived[0]).detach())
        for given, r in zip(self.used, relevance, strict=True):
            if not bool(torch.isfinite(r).all()):
                raise NonFinite(
                    f"the relevance of {_input_name(given.key)} overflowed under the rules {chosen}. Use a stabiliser "
                    "(Epsilon(1e-3)), or a wider dtype: model.double(), x.double()"
                )
        return relevance, str(chosen)

    def flows(self, start: Tensor) -> tuple[OperationFlow, ...]:
        """What each operation received and passed on in the last backward pass."""
        node = self.trace.node(start)
        assert node is not None
        rules = self.trace.run.rules
        # Picking the target's score out of the output is no step of the model.
        picking = (op for op in _reachable(node.operation) if op.kind == "carrier" and op.index >= self.model_end)
        left_out = {op.index for op in picking}
        return tuple(
            _flow(op, rules)
            for op in _reachable(node.operation)
            if op.kind != "input" and op.index not in left_out
        )

    def structured(self, values: list[Tensor]) -> Any:
        """Values of the used inputs in the form in which the inputs were given."""
        if isinstance(self.x, Tensor):
            return values[0]
        if isinstance(self.x, dict):
            return {given.key: v for given, v in zip(self.used, values, strict=True)}
        return tuple(values)

    def _require_inputs(self) -> None:
        if not self.used:
            raise _integer_input(self.trace)


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


def _flow(op: Operation, rules: Mapping[int, Any]) -> OperationFlow:
    absorbed = dict(op.flow.absorbed)
    rest = op.flow.received - op.flow.passed - sum(absorbed.values())
    if rest:
        size = abs(op.flow.received) + abs(op.flow.passed)
        cause = op.remainder if abs(rest) > 1e-5 * size else "rounding"
        absorbed[cause] = absorbed.get(cause, 0.0) + rest
    rule = repr(rules[op.index]) if op.index in rules else ""
    return OperationFlow(op.index, op.function, op.module, op.kind, rule, op.flow.received, op.flow.passed, absorbed)


@contextlib.contextmanager
def _watched(
    model: Callable[..., Any], trace: Trace, names: Sequence[str], found: dict[str, Tensor]
) -> Iterator[None]:
    """Collect the relevance at the outputs of the named modules, through hooks that are gone afterwards."""
    if isinstance(names, str):
        names = [names]
    modules = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    handles = []
    try:
        for name in names:
            if name not in modules:
                close = difflib.get_close_matches(name, modules, n=3)
                hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
                raise InvalidInput(f"layers: the model has no module named {name!r}.{hint}")
            handles.append(modules[name].register_forward_hook(_collector(trace, name, found)))
        yield
    finally:
        for handle in handles:
            handle.remove()
    for name in names:
        if name not in found:
            raise InvalidInput(f"layers: the module {name!r} was not called, or nothing live came out of it")


def _collector(trace: Trace, name: str, found: dict[str, Tensor]) -> Callable[..., None]:
    import threading

    thread = threading.get_ident()

    def collect(module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() != thread:
            return
        tensor = next((t for t in _tensors(output) if trace.node(t) is not None), None)
        if tensor is None:
            return
        if name in found and found[name].shape != tensor.shape:
            raise InvalidInput(f"layers: the module {name!r} is called with different shapes; its relevances can't add")
        found[name] = torch.zeros_like(tensor.detach())

        def notify(value: Tensor, v: Tensor) -> None:
            found[name] = found[name] + value * v

        trace.watch(tensor, notify)
        node = trace.node(tensor)
        assert node is not None
        node.operation.watchers.append(notify)

    return collect


@contextlib.contextmanager
def _eager() -> Iterator[None]:
    """Compiled parts of a model run as plain Python meanwhile, where their functions can be seen."""
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _tensors(value: Any) -> list[Tensor]:
    return [t for _, t in targets_.parts(value)]


def _checked_inputs(x: Any) -> Inputs:
    """InvalidInput or NonFinite for what can't be explained."""
    if not isinstance(x, (Tensor, tuple, list, dict)):
        raise InvalidInput(
            f"got a {type(x).__name__} as input; give a tensor of shape (batch, ...), for example "
            "torch.from_numpy(array)[None], or a tuple or dict of tensors for several inputs"
        )
    items = [(None, x)] if isinstance(x, Tensor) else list(x.items() if isinstance(x, dict) else enumerate(x))
    if not any(isinstance(v, Tensor) for _, v in items):
        raise InvalidInput("the input holds no tensor")
    for key, value in items:
        if isinstance(value, Tensor):
            _check_tensor(key, value)
    return x


def _check_tensor(key: Any, value: Tensor) -> None:
    name = _input_name(key)
    if value.dim() == 0 or value.numel() == 0:
        raise InvalidInput(f"{name} has shape {tuple(value.shape)}; expected a batch of samples, (batch, ...)")
    if value.is_complex():
        raise InvalidInput(f"{name} is complex ({value.dtype}); relevance is defined for real values")
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        count = int((~torch.isfinite(value)).sum())
        raise NonFinite(f"{name} holds {count} values that are NaN or infinite. Clean them: torch.nan_to_num(x)")


def _input_name(key: Any) -> str:
    return "the input" if key is None else f"input {key!r}"


def _integer_input(trace: Trace) -> InvalidInput:
    dtypes = ", ".join(sorted({str(given.tensor.dtype) for given in trace.inputs}))
    return InvalidInput(
        f"the input is of integers ({dtypes}) and goes through no embedding. Convert an image first, as in training: "
        "x.float() / 255"
    )


def _checked_bounds(bounds: Any) -> Bounds | None:
    if bounds is None:
        return None
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise InvalidInput(f"bounds: got {bounds!r}, expected (low, high), numbers or tensors of shape (channels, 1, 1)")
    return bounds[0], bounds[1]


def _labels_of(model: Any) -> tuple[str, ...] | None:
    """Class names that a model brings along."""
    labels = getattr(model, "labels", None)
    if isinstance(labels, (list, tuple)) and all(isinstance(label, str) for label in labels):
        return tuple(labels)
    by_id = getattr(getattr(model, "config", None), "id2label", None)
    if isinstance(by_id, dict):
        return tuple(str(by_id[i]) for i in sorted(by_id))
    return None


def _seed_sum(seed: Tensor) -> Tensor:
    return seed.detach().flatten(1).sum(1) if seed.dim() > 1 else seed.detach()


def _detached(value: Any) -> Any:
    """An output without its graph, in the same structure."""
    if isinstance(value, Tensor):
        return value.detach()
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: _detached(getattr(value, f.name)) for f in fields(value) if f.init}
        return replace(value, **changed)
    if isinstance(value, dict):
        items = {k: _detached(v) for k, v in value.items()}
        return items if type(value) is dict else type(value)(**items)
    if isinstance(value, (list, tuple)):
        items_ = [_detached(v) for v in value]
        return type(value)(*items_) if hasattr(value, "_fields") else type(value)(items_)
    return value
