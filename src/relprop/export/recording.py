"""Recording an explanation as a graph of torch's own operations: inputs in, score and relevance out."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from relprop.asking import as_program
from relprop.engine.trace import Trace
from relprop.errors import InvalidInput, InvalidTarget, RelpropError, UnsupportedModel
from relprop.export.constants import Constants
from relprop.inputs import Inputs
from relprop.targets import Choice, Target, before_squash, scores_of

if TYPE_CHECKING:
    from relprop.attribution import Attribution
    from relprop.explainer import Explainer

# The size of the batch that is recorded where it may be any: not 1, which torch treats apart.
_BATCH = 5

_TORCH, _RELPROP = (str(Path(home).parent) for home in (torch.__file__, __file__.removesuffix("recording.py")))
# They return what they are given.
_SAME = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)
# Here torch asks for sizes to choose kernels and strides, and values don't depend on it.
_HARMLESS = ("_subclasses", "_prims", "_refs", "_decomp", "_meta", "_inductor", "fx", "utils")


@dataclass(frozen=True)
class Recording:
    """An explanation as a graph.

    Its arguments are called `names`; it returns (score (batch,), relevance as the inputs are given) and, where the
    highest score is explained, the classes (batch,). by_name: whether the arguments are given by name. arguments: those
    of the example. explained: what the explainer itself makes of arguments. constants: all tensors that were read
    beside the arguments, the model's parameters among them. classes: how many scores the model has; 0 if the target is
    a function or a choice.
    """

    graph: GraphModule
    names: tuple[str, ...]
    by_name: bool
    dynamic_batch: bool
    arguments: tuple[Tensor, ...]
    explained: Callable[..., tuple[Any, ...]]
    constants: tuple[Tensor, ...]
    classes: int


@dataclass(frozen=True, eq=False)
class _Chosen(Choice):
    """The score of a class, of one for each sample, or the highest; `index` holds which classes that are."""

    target: int | Tensor | None
    index: list[Tensor] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)

    def score(self, trace: Trace, output: Any, labels: Sequence[str] | None, batch: int) -> Tensor:
        scores = before_squash(trace, scores_of(trace, output))
        values = scores.detach()
        values = values[:, None] if values.dim() == 1 else values
        index = values.argmax(1) if self.target is None else self.target
        if isinstance(index, int):
            index = torch.full_like(values[:, 0], index, dtype=torch.int64)
        self.index.append(index)
        self.classes.append(values.shape[1])
        with trace:
            return scores if scores.dim() == 1 else scores.gather(1, index[:, None])[:, 0]


@dataclass(frozen=True)
class Form:
    """How the arguments of a program become an explainer's inputs and target, and an attribution its results."""

    x: Inputs
    keys: tuple[Any, ...]
    target: Target

    @staticmethod
    def of(x: Inputs, target: Target) -> Form:
        x = dict(x) if isinstance(x, Mapping) else x
        items = [(None, x)] if isinstance(x, Tensor) else list(x.items() if isinstance(x, dict) else enumerate(x))
        return Form(x, tuple(key for key, value in items if isinstance(value, Tensor)), target)

    @property
    def names(self) -> tuple[str, ...]:
        names = ["x" if key is None else f"x{key}" if isinstance(key, int) else key for key in self.keys]
        return (*names, "target") if isinstance(self.target, Tensor) else tuple(names)

    @property
    def others(self) -> tuple[Any, ...]:
        """What is no tensor among the inputs, in order."""
        values = () if isinstance(self.x, Tensor) else self.x.values() if isinstance(self.x, dict) else self.x
        return tuple(value for value in values if not isinstance(value, Tensor))

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        x: Any = self.x
        tensors = [x if key is None else x[key] for key in self.keys]
        return (*tensors, self.target) if isinstance(self.target, Tensor) else tuple(tensors)

    def given(self, arguments: Sequence[Tensor]) -> tuple[Inputs, Target]:
        """(inputs, target) in place of the example's."""
        by_key = dict(zip(self.keys, arguments, strict=False))
        target = arguments[-1] if isinstance(self.target, Tensor) else self.target
        if target is None or isinstance(target, (int, Tensor)):
            target = _Chosen(target)
        if isinstance(self.x, Tensor):
            return by_key[None], target
        if isinstance(self.x, dict):
            return {**self.x, **by_key}, target
        return tuple(by_key.get(place, value) for place, value in enumerate(self.x)), target

    def require_batch(self, batch: int) -> None:
        """Refuse inputs whose first axis is not that of the samples, where the batch shall be of any size."""
        for name, tensor in zip(self.names, self.arguments, strict=True):
            if tensor.shape[0] != batch:
                raise InvalidInput(
                    f"the input {name!r} has shape {tuple(tensor.shape)}, another one has {batch} samples: the first "
                    "axis of all must be the batch for a program that takes any number of samples. Write "
                    "dynamic_batch=False for one that takes as many as the example has"
                )


def record(explainer: Explainer, x: Inputs, target: Target = None, *, dynamic_batch: bool = True) -> Recording:
    """The explanation of inputs like `x`; arguments and errors as of Explainer.export."""
    if explainer.method is not None:
        raise InvalidInput(
            f"only LRP becomes a program, and this explainer's method is {explainer.method.name!r}. Leave method= away"
        )
    if explainer._pipeline is not None:
        raise UnsupportedModel(
            "got a pipeline, whose reading of pictures is no torch function. Export the explanation of its model: "
            "relprop.Explainer(pipeline.model).export(path, pixel_values)"
        )
    if explainer._stages:
        raise InvalidInput("a program has no segments. Leave segments= away: Explainer(model, rules).export(...)")
    attribution = explainer(x, target)  # says what can't be explained at all
    form = Form.of(x, _one_target(target, attribution))
    if dynamic_batch:
        form.require_batch(len(attribution))

    counted = [0]

    def explained(*arguments: Tensor) -> tuple[Any, ...]:
        inputs, chosen = form.given(arguments)
        found = explainer(inputs, chosen)
        if isinstance(chosen, _Chosen):
            counted[0] = chosen.classes[0]
            if form.target is None:
                return found.score, found.relevance, chosen.index[0]
        return found.score, found.relevance

    constants = Constants()

    def recorded(*arguments: Tensor) -> tuple[Any, ...]:
        with constants:
            return explained(*arguments)

    environment = ShapeEnv(allow_scalar_outputs=False)
    # The inputs have no values while they are recorded, so that none can decide anything; constants keep theirs.
    mode = FakeTensorMode(shape_env=environment, allow_non_fake_inputs=True)
    try:
        symbols = [_without_values(mode, t, dynamic_batch) for t in form.arguments]
        with as_program(), mode, enable_python_dispatcher():
            graph = make_fx(recorded)(*symbols)
    except RelpropError:
        raise
    except Exception as error:  # torch raises whatever its parts raise
        if dynamic_batch:
            _require_any_batch(environment)
        raise _unrecorded(error) from error
    if dynamic_batch:
        _require_any_batch(environment)
    _tidy(graph, form.names)
    by_name, read = isinstance(form.x, dict), tuple(constants.read.values())
    return Recording(graph, form.names, by_name, dynamic_batch, form.arguments, explained, read, counted[0])


def _one_target(target: Target, attribution: Attribution) -> Target:
    """The target as a program has it: names and numbers as one class."""
    if target is None or callable(target) or isinstance(target, (Tensor, Choice)):
        return target
    if isinstance(target, str) or hasattr(target, "__index__"):
        assert attribution.target is not None
        return int(attribution.target[0])
    raise InvalidTarget(
        f"got the target {target!r}. In a program it is one class for all samples, None for the highest score, or, "
        "for a class that is given with each sample, a tensor such as torch.tensor([3, 5]), which becomes an input"
    )


def _without_values(mode: FakeTensorMode, tensor: Tensor, dynamic_batch: bool) -> Tensor:
    if not dynamic_batch:
        return mode.from_tensor(tensor, static_shapes=True)
    tensor = tensor.new_empty((_BATCH, *tensor.shape[1:]))
    sizes = [DimDynamic.DYNAMIC] + [DimDynamic.STATIC] * (tensor.dim() - 1)
    return mode.from_tensor(tensor, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))


def _require_any_batch(environment: ShapeEnv) -> None:
    """Refuse what was decided by the number of samples, which the program would decide alike for all."""
    fixed = [str(symbol) for symbol, value in environment.replacements.items() if value.is_number]
    asked: list[Any] = [g.sloc.framework_loc for g in environment.guards if not _is_harmless(g.sloc.framework_loc)]
    if fixed or asked:
        place = f" ({asked[0].filename}, line {asked[0].lineno})" if asked else ""
        raise UnsupportedModel(
            f"a step of the explanation depends on the number of samples{place}, so one program can't take any number "
            "of them. Write dynamic_batch=False for a program that takes as many as the example has"
        )


def _is_harmless(place: Any) -> bool:
    path = str(getattr(place, "filename", ""))
    return path.startswith(_TORCH) and path.removeprefix(_TORCH).lstrip("/\\").startswith(_HARMLESS)


def _unrecorded(error: Exception) -> UnsupportedModel:
    """What it means that torch could not record a forward or backward pass."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith((_TORCH, _RELPROP))]
    engine = [f for f in frames if f.filename.startswith(_RELPROP)]
    last = own[-1] if own else engine[-1]
    line = f"{last.filename}, line {last.lineno}: {last.line}"
    return UnsupportedModel(
        f"the explanation can't be recorded as a program: at {line}\nthe values of the input decide what is computed, "
        "or torch knows no form of it without values. Write that step with torch functions, such as torch.where. "
        f"torch said: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    )


def _tidy(graph: GraphModule, names: Sequence[str]) -> None:
    """Leave out what nothing uses or needs, make buffers of all constants, and give the arguments their names."""
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for node in list(graph.graph.nodes):
        # The arguments alone may have a history to be cut off from.
        if node.target in _SAME and node.args[0] not in placeholders:
            node.replace_all_uses_with(node.args[0])
    graph.graph.eliminate_dead_code()
    for node, name in zip(placeholders, names, strict=True):
        node.target = node.name = name
    transposed = set()
    for name in {node.target for node in graph.graph.nodes if node.op == "get_attr"}:
        constant = getattr(graph, name).detach()
        if constant.dim() == 2 and not constant.is_contiguous() and constant.T.is_contiguous():
            constant = constant.T  # the weights themselves, which are stored but once
            transposed.add(name)
        if constant.untyped_storage().nbytes() != constant.numel() * constant.element_size():
            constant = constant.clone()  # a part of other memory, or repeated
        delattr(graph, name)
        graph.register_buffer(name, constant.contiguous())
    for node in [node for node in graph.graph.nodes if node.op == "get_attr" and node.target in transposed]:
        with graph.graph.inserting_after(node):
            turned = graph.graph.call_function(torch.ops.aten.t.default, (node,))
        node.replace_all_uses_with(turned, lambda user, turned=turned: user is not turned)
    graph.recompile()
