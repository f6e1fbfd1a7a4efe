"""Explanations that are recorded once for inputs of one shape, and run as recorded from then on."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from relprop.attribution import Attribution, named
from relprop.engine.weights import checksum
from relprop.errors import InvalidInput, InvalidTarget, RelpropError
from relprop.export.recording import Form, record
from relprop.inputs import Inputs
from relprop.targets import Choice, Target, indices

if TYPE_CHECKING:
    from relprop.explainer import Explainer

Compile = Literal[False, True, "graph"]

# How many recordings, for as many shapes, an explainer keeps.
_MOST = 16


@dataclass(frozen=True)
class _Program:
    """A recording to run. classes: how many scores the model has; seen: of the constants, when it was recorded."""

    run: Callable[..., Any]
    constants: tuple[Tensor, ...]
    seen: tuple[Any, ...]
    classes: int
    rules: str
    notes: tuple[str, ...]


class Compiled:
    """Explanations as `explainer` makes them, from recordings.

    how: True, through torch.compile; "graph", one of torch's functions after the other, without its compiler.
    """

    def __init__(self, explainer: Explainer, how: Compile) -> None:
        if how not in (True, "graph"):
            raise InvalidInput(f'compile: got {how!r}, expected True, False or "graph"')
        if explainer.method is not None or explainer._stages:
            raise InvalidInput("compile= is for LRP without segments=. Leave it away with method= and segments=")
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
        checked = self.eager._checked(x)
        form = Form.of(checked, None)
        with self._lock:
            program = self._program(form, target)
        arguments = form.arguments
        index = None
        if target is not None:
            scores = torch.empty(len(arguments[0]), program.classes)
            index = indices(target, scores, self.eager.labels).to(arguments[0].device)
            arguments = (*arguments, index)
        score, relevance, *highest = self._run(program, arguments)
        if not all(bool(torch.isfinite(part).all()) for part in (score, *(part for _, part in named(relevance)))):
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

    def _program(self, form: Form, target: Target) -> _Program:
        kind, rest = type(form.x).__name__, map(repr, form.others)
        key = (kind, form.keys, tuple((t.shape, t.dtype, t.device) for t in form.arguments), *rest, target is None)
        known = self._programs.get(key)
        if known is None or known.seen != self._seen(known.constants):
            self._programs.pop(key, None)
            while len(self._programs) >= _MOST:
                self._programs.pop(next(iter(self._programs)))
            known = self._programs[key] = self._recorded(form, target)
        return known

    def _recorded(self, form: Form, target: Target) -> _Program:
        attribution = self._explained(form.x, target)
        if attribution.target is None:
            raise InvalidTarget("with compile= a class's score is explained, and the model returns none")
        recording = record(self.eager, form.x, None if target is None else attribution.target, dynamic_batch=False)
        run: Callable[..., Any] = recording.graph
        if self.how is True:
            run = torch.compile(run, fullgraph=True, dynamic=False)
        seen = self._seen(recording.constants)
        return _Program(run, recording.constants, seen, recording.classes, attribution.rules, attribution.notes)

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

    def _seen(self, constants: tuple[Tensor, ...]) -> tuple[Any, ...]:
        """What tells whether the constants, and the model's parameters, are what they were."""
        model = self.eager.model
        own = (*model.parameters(), *model.buffers()) if isinstance(model, nn.Module) else ()
        values = tuple((c._version, c.data_ptr(), checksum(c)) for c in constants if not c.is_complex())
        return (*map(id, own), *values)

    @staticmethod
    def _inputs(x: Inputs, relevance: Any) -> Any:
        """The inputs that were explained, detached, in the structure of the relevance."""
        if isinstance(x, Tensor):
            return x.detach()
        if isinstance(x, dict):
            return {name: x[name].detach() for name in relevance}
        return tuple(value.detach() for value in x if isinstance(value, Tensor))
