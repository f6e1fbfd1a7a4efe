"""Evaluation: scores and gradients of one model for one input and target, also at changed values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from relprop.engine.tokens import at_input
from relprop.errors import InvalidInput, InvalidOutput, NonFinite
from relprop.inputs import Inputs
from relprop.methods.plain import Change, Key, Observe, PlainTrace, Rectified
from relprop.models.prepare import module_names
from relprop.session import Session, Start, detached
from relprop.targets import Target

OpenSession = Callable[[PlainTrace, Inputs], AbstractContextManager[Session]]


@dataclass(frozen=True)
class Used:
    """An input that is explained: its place among the inputs, its key there, whether it holds token ids, and its
    keys in an evaluation (for token ids one for each embedding they go through, with the places of the ids there)."""

    place: int
    key: Any
    tokens: bool
    shape: torch.Size
    keys: tuple[Key, ...]
    places: tuple[Tensor, ...]


@dataclass(frozen=True)
class Facts:
    """What is known once the model has seen the input. values: what is explained, token ids by their embeddings."""

    score: Tensor
    index: Tensor | None
    output: Any
    used: tuple[Used, ...]
    values: dict[Key, Tensor]
    inputs: list[Tensor]


@dataclass(eq=False)
class Evaluation:
    """The score that is explained, as a function of the values it is explained by.

    Each evaluation is one forward pass of the model on the whole batch, as it was given: nothing is stacked, so that no
    sample's result depends on how a method batches its work.
    """

    model: Callable[..., Any]
    open_session: OpenSession
    x: Inputs
    target: Target
    labels: Sequence[str] | None
    notes: dict[str, None] = field(default_factory=dict)
    _facts: Facts | None = None

    @property
    def facts(self) -> Facts:
        """What the model makes of the unchanged input."""
        if self._facts is None:
            with self.at():
                pass
        assert self._facts is not None
        return self._facts

    @contextlib.contextmanager
    def at(
        self,
        change: Change | None = None,
        *,
        x: Inputs | None = None,
        gradient: bool = False,
        connected: bool = False,
        rectified: Rectified = Rectified.GRADIENT,
        observe: Observe | None = None,
    ) -> Iterator[tuple[Session, Start]]:
        """A forward pass and the score it gave; arguments as for PlainTrace, x for another input of the same form."""
        unchanged = change is None and x is None
        # The highest score is that of the unchanged input, wherever the evaluation takes place.
        target = self.facts.index if self.target is None and not unchanged else self.target
        names = module_names(self.model)
        trace = PlainTrace(names, change, gradient=gradient, connected=connected, rectified=rectified, observe=observe)
        with self.open_session(trace, self.x if x is None else x) as session:
            start = session.start(target, "score", self.labels)
            if unchanged and self._facts is None:
                self._facts = _facts_of(session, start)
            self.notes.update(trace.notes)
            yield session, start

    def score(self, change: Change | None = None) -> Tensor:
        """(batch,): the score, at changed values if asked."""
        with self.at(change) as (_, start):
            return start.score

    def gradient(
        self, change: Change | None = None, rectified: Rectified = Rectified.GRADIENT
    ) -> tuple[dict[Key, Tensor], int]:
        """(the derivative of the score by each value that is explained, how many ReLUs were `rectified`)."""
        with self.at(change, gradient=True, rectified=rectified) as (session, start):
            leaves = _leaves(session)
            if start.tensor.grad_fn is None:
                raise _no_derivative()
            found = torch.autograd.grad(
                start.tensor, list(leaves.values()), torch.ones_like(start.tensor), allow_unused=True
            )
            rectifiers = session.trace.rectifiers if isinstance(session.trace, PlainTrace) else 0
        if all(g is None for g in found):
            raise _no_derivative()
        gradients = {}
        for (key, leaf), g in zip(leaves.items(), found, strict=True):
            gradients[key] = torch.zeros_like(leaf.detach()) if g is None else g
            if not bool(torch.isfinite(gradients[key]).all()):
                raise NonFinite(
                    "the gradient holds NaN or infinity: the model is not differentiable at these values. Occlusion "
                    "needs no gradient: method='occlusion'"
                )
        return gradients, rectifiers

    def embedded(self, x: Inputs) -> dict[Key, Tensor]:
        """The values by which another input of the same form would be explained."""
        with self.at(x=x) as (session, _):
            return {key: leaf.detach() for key, leaf in _leaves(session).items()}

    def summed(self, values: dict[Key, Tensor]) -> list[Tensor]:
        """Values by key as values by explained input: those of an embedding are summed over its dimension."""
        found = []
        for used in self.facts.used:
            parts = [values[key] for key in used.keys]
            if used.tokens:
                parts = [at_input(v.sum(-1), p, used.shape) for v, p in zip(parts, used.places, strict=True)]
            found.append(sum(parts[1:], parts[0]))
        return found

    def one(self, index: int) -> Evaluation:
        """The same for one sample of the batch."""
        return self.rearranged(lambda t: t[index : index + 1]) if len(self.facts.score) > 1 else self

    def rearranged(self, change: Callable[[Tensor], Tensor]) -> Evaluation:
        """The same with the batch of every input changed, and each sample's target going along.

        Raises InvalidInput where an input does not consist of samples.
        """
        batch = len(self.facts.score)

        def changed(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if value.dim() == 0 or len(value) != batch:
                raise InvalidInput(
                    f"this method needs inputs that can be divided into samples, and one of shape {tuple(value.shape)} "
                    f"can't be into {batch}. Give one sample at a time, and close over what is no sample: "
                    "relprop.explain(lambda x: model(x, other), x[:1], ...)"
                )
            return change(value)

        index = self.facts.index
        target = self.target if index is None else change(index)
        return Evaluation(self.model, self.open_session, map_inputs(self.x, changed), target, self.labels)


def map_inputs(x: Inputs, change: Callable[[Any], Any]) -> Inputs:
    """The inputs, each changed."""
    if isinstance(x, Tensor):
        changed: Tensor = change(x)
        return changed
    if isinstance(x, dict):
        return {key: change(value) for key, value in x.items()}
    return tuple(change(value) for value in x)


def _used(session: Session) -> list[Used]:
    return [
        Used(
            place,
            given.key,
            given.tokens,
            given.tensor.shape,
            tuple((place, i) for i in range(len(given.leaves))),
            tuple(given.places),
        )
        for place, given in enumerate(session.trace.inputs)
        if given.leaves
    ]


def _leaves(session: Session) -> dict[Key, Tensor]:
    return {(place, i): leaf for place, given in enumerate(session.trace.inputs) for i, leaf in enumerate(given.leaves)}


def _facts_of(session: Session, start: Start) -> Facts:
    return Facts(
        score=start.score,
        index=start.index,
        output=detached(session.output),
        used=tuple(_used(session)),
        values={key: leaf.detach() for key, leaf in _leaves(session).items()},
        inputs=[given.tensor.detach() for given in session.used],
    )


def _no_derivative() -> InvalidOutput:
    return InvalidOutput(
        "the score has no derivative by the input: no differentiable way leads from one to the other. Occlusion needs "
        "none: method='occlusion'"
    )
