"""Explanations that are recorded once for inputs of one shape, and run as recorded from then on."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from relprop.asking import finite
from relprop.attribution import Attribution, named
from relprop.engine.weights import PreparedWeights
from relprop.errors import InvalidInput, InvalidTarget, RelpropError
from relprop.export.program import require_same
from relprop.export.recording import Form, record
from relprop.export.running import function_of
from relprop.export.snapshot import Snapshot
from relprop.inputs import Inputs, checked_inputs, require_within
from relprop.targets import Choice, Target, indices

if TYPE_CHECKING:
    from relprop.explainer import Explainer

Compile = Literal[False, True, "graph"]

# How many recordings, for as many shapes, an explainer keeps.
_MOST = 16


@dataclass(frozen=True)
class _Program:
    """A recording to run. scores: of the shape of the model's, (batch, classes), without values."""

    run: Callable[..., Any]
    snapshot: Snapshot
    scores: Tensor
    rules: str
    notes: tuple[str, ...]


class Compiled:
    """Explanations as `explainer` makes them, from recordings.

    how: True, through torch.compile; "graph", one of torch's functions after the other, without its compiler.
    """

    def __init__(self, explainer: Explainer, how: Compile) -> None:
        if not (how is True or how == "graph"):
            raise InvalidInput(f'compile: got {how!r}, expected True, False or "graph"')
        if explainer.method is not None or explainer._stages:
            raise InvalidInput("compile= is for LRP without segments=. Leave it away with method= and segments=")
        if explainer._pipeline is not None:
            raise InvalidInput(
                "compile= is for models, and got a pipeline. Explain its model: relprop.Explainer(pipeline.model, "
                "compile=...), with pixel_values as the input"
            )
        self.eager = copy.copy(explainer)
        self.how = how
        self._programs: dict[Any, _Program] = {}
        self._lock = threading.Lock()

    @staticmethod
    def require_plain(seed: Any, layers: Any, attention: bool) -> None:
        """Refuse what a recording does not hold."""
        if not isinstance(seed, str) or layers or attention:
            raise InvalidInput(
                "seed=, layers= and attention= need an explainer that follows each step. Leave compile= away for them"
            )

    def __call__(self, x: Inputs, target: Target) -> Attribution:
        """Arguments and errors as of Explainer.__call__."""
        if isinstance(target, Choice) or (callable(target) and not isinstance(target, Tensor)):
            raise InvalidTarget(
                f"got the target {target!r}; with compile= a target is a class, one for each sample, or None for the "
                "highest score. Leave compile= away for functions and choices"
            )
        checked = checked_inputs(x)
        require_within(checked, self.eager.bounds)
        form = Form.of(checked, None)
        arguments = form.arguments
        with self._lock:
            program = self._program(form, arguments, target)
        index = None
        if target is not None:
            index = indices(target, program.scores, self.eager.labels).to(arguments[0].device)
            arguments = (*arguments, index)
        score, relevance, *highest = self._run(program, arguments)
        if not (finite(score) and all(finite(part) for _, part in named(relevance))):
            return self._explained(x, target)  # which says what is wrong
        return Attribution(
            relevance=relevance,
            score=score,
            target=highest[0] if index is None else index,
            inputs=self._inputs(checked, relevance),
            rules=program.rules,
            labels=self.eager.labels,
            notes=program.notes,
            trace_flow=lambda: self._explained(x, target).conservation.operations,
        )

    def _explained(self, x: Inputs, target: Target) -> Attribution:
        """What the explainer itself finds, step by step."""
        attribution: Attribution = self.eager(x, target)
        return attribution

    def _program(self, form: Form, arguments: tuple[Tensor, ...], target: Target) -> _Program:
        kind, others = type(form.x), tuple(map(repr, form.others))
        key = (kind, form.keys, others, target is None, *((t.shape, t.dtype, t.device) for t in arguments))
        known = self._programs.get(key)
        if known is not None and not known.snapshot.holds():
            del self._programs[key]
            self.eager._prepared, known = PreparedWeights(), None  # weights modified for rules are made anew, too
        if known is None:
            while len(self._programs) >= _MOST:
                self._programs.pop(next(iter(self._programs)))
            known = self._programs[key] = self._recorded(form, target)
        return known

    def _recorded(self, form: Form, target: Target) -> _Program:
        attribution = self._explained(form.x, target)
        if attribution.target is None:
            raise InvalidTarget("with compile= a class's score is explained, and the model returns none")
        recording = record(self.eager, form.x, None if target is None else attribution.target, dynamic_batch=False)
        with torch.no_grad():
            require_same(recording.graph(*recording.arguments), recording.explained(*recording.arguments))
        run: Callable[..., Any]
        if self.how is True:
            run = torch.compile(recording.graph, fullgraph=True, dynamic=False)
        else:
            run = function_of(recording.graph)
        snapshot = Snapshot(self.eager.model, recording.constants)
        scores = torch.empty(1, device="meta").expand(len(attribution), recording.classes)
        return _Program(run, snapshot, scores, attribution.rules, attribution.notes)

    def _run(self, program: _Program, arguments: tuple[Tensor, ...]) -> Any:
        with torch.no_grad():
            try:
                return program.run(*arguments)
            except Exception as error:  # torch's compiler raises whatever its parts raise
                if self.how is not True:
                    raise
                raise RelpropError(
                    f"torch.compile could not build this explanation ({type(error).__name__}: "
                    f"{str(error).splitlines()[0] if str(error) else ''}). It needs a C++ compiler, such as g++; "
                    'compile="graph" needs none'
                ) from error

    @staticmethod
    def _inputs(x: Inputs, relevance: Any) -> Any:
        """The inputs that were explained, detached, in the structure of the relevance."""
        if isinstance(x, Tensor):
            return x.detach()
        if isinstance(x, dict):
            return {name: x[name].detach() for name in relevance}
        return tuple(value.detach() for value in x if isinstance(value, Tensor))
