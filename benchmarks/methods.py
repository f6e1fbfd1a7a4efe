"""What is measured on a case: the forward pass, the gradient, our presets, the peers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

import relprop
from benchmarks import peers
from benchmarks.cases import Case, Score

GRADIENT, FROZEN, RECORDED = "gradient", "gradient, frozen", "recorded"
BESIDE_TURNS = 2
Run = Callable[[Tensor], Any]


class Subject:
    """A case with its model built."""

    def __init__(self, case: Case) -> None:
        self.case = case

    @cached_property
    def model(self) -> nn.Module:
        return self.case.build()

    @cached_property
    def x(self) -> Tensor:
        return self.case.x()

    @cached_property
    def frozen(self) -> nn.Module:
        """The model with parameters that need no gradient; the same memory."""
        shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in self.model.parameters()}
        return copy.deepcopy(self.model, shared)

    @cached_property
    def apart(self) -> nn.Module:
        """A copy for the peers, some of which write to a model's weights."""
        return copy.deepcopy(self.model)


@dataclass(frozen=True)
class Method:
    """Something to measure. unit: the method its ratio refers to; turns: in the first ones only (None: in all)."""

    name: str
    prepare: Callable[[Subject], Run]
    unit: str = GRADIENT
    turns: int | None = None
    peer: peers.Peer | None = None


def methods(case: Case) -> dict[str, Method]:
    """All that applies to a case, by name: installed peers only."""
    first = case.presets[0]
    found = [
        Method("forward", _forward),
        Method(GRADIENT, lambda subject: gradient(subject.model, case.score)),
        Method(FROZEN, lambda subject: gradient(subject.frozen, case.score)),
        *(Method(name, _preset(name)) for name in case.presets),
        Method(f"{first}, frozen", _preset(first, frozen=True), FROZEN),
        *([Method(f"{first}, {RECORDED}", _recorded(first))] if case.recorded else []),
        *(Method(name, _preset(name), turns=BESIDE_TURNS) for name in case.beside),
        *(Method(peer.title, _peer(peer), turns=1, peer=peer) for peer in peers.installed(case.peers, case.compared)),
    ]
    return {method.name: method for method in found}


def _forward(subject: Subject) -> Run:
    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return subject.model(x)  # type: ignore[no-any-return]

    return run


def gradient(model: nn.Module, score: Score) -> Run:
    """One forward and one backward pass to the input; weights get no gradient."""

    def run(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(score(model(x)).sum(), x)[0]

    return run


def _preset(name: str, frozen: bool = False) -> Callable[[Subject], Run]:
    """An explainer that is kept, as for many inputs, so that its weights are prepared once: in the warm-up."""

    def prepare(subject: Subject) -> Run:
        case = subject.case
        explainer = relprop.Explainer(subject.frozen if frozen else subject.model, name, bounds=case.bounds)
        return lambda x: explainer(x, case.target)

    return prepare


def _recorded(name: str) -> Callable[[Subject], Run]:
    """An explainer that has recorded the explanation of inputs of the case's shape, and runs the recording."""

    def prepare(subject: Subject) -> Run:
        case = subject.case
        explainer = relprop.Explainer(subject.model, name, bounds=case.bounds, compile="graph")
        explainer(subject.x, case.target)
        return lambda x: explainer(x, case.target)

    return prepare


def _peer(peer: peers.Peer) -> Callable[[Subject], Run]:
    return lambda subject: peer.prepare(subject.apart, subject.case.score)


def require_done(name: str, found: Any, case: Case, model: nn.Module, x: Tensor) -> None:
    """RuntimeError unless this is what was to be computed: relevance of the score, finite, of the input's shape."""
    if name == "forward":
        return
    relevance: Any = found.relevance if isinstance(found, relprop.Attribution) else found
    if relevance.shape != x.shape or not relevance.isfinite().all() or not relevance.any():
        raise RuntimeError(f"{case.name}, {name}: no relevance: {relevance}")
    if isinstance(found, relprop.Attribution):
        with torch.no_grad():
            score = case.score(model(x))
        if not torch.allclose(found.score, score, rtol=1e-3, atol=1e-5):
            raise RuntimeError(f"{case.name}, {name}: explains {found.score}, the model's score is {score}")


class Comparison:
    """Peers' relevance beside ours on a small input of a case, in float64."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._ours: dict[str, Tensor] = {}

    @cached_property
    def _model(self) -> nn.Module:
        return self.case.build().double()

    @cached_property
    def _x(self) -> Tensor:
        return self.case.small().double()

    def deviation(self, peer: peers.Peer) -> float:
        """How far a peer's relevance is from ours by the same rule: sum |a - b| / sum |b|."""
        case, x = self.case, self._x
        theirs = peer.prepare(copy.deepcopy(self._model), case.score)(x).detach()
        if peer.preset not in self._ours:
            explainer = relprop.Explainer(self._model, peer.preset, bounds=case.bounds)
            self._ours[peer.preset] = explainer(x, case.target).relevance
        ours = self._ours[peer.preset]
        return float((theirs - ours).abs().sum() / ours.abs().sum())
