"""Targets: which score of the model's output is explained."""

from __future__ import annotations

import difflib
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relprop.asking import known
from relprop.engine.trace import Trace
from relprop.errors import InvalidOutput, InvalidTarget, NonFinite

__all__ = ["Answer", "At", "Contrast", "Similarity", "Target", "answer", "at", "contrast", "next_token", "similarity"]

_SCORES = ("logits", "out")  # what transformers and torchvision call them in an output of several tensors


class Choice(ABC):
    """A score that is found in a model's output by name; made by the functions of this module."""

    @abstractmethod
    def score(self, trace: Trace, output: Any, labels: Sequence[str] | None, batch: int) -> Tensor:
        """(batch,): the score, computed under the trace. Raises InvalidTarget where the output has no such score."""


Target = int | str | Sequence[int | str] | Tensor | Callable[[Any], Tensor] | Choice | None


def at(position: int | str | Sequence[int] | Tensor, target: Target = None) -> At:
    """The score at one position of a sequence: of a label (token classification) or of a token (masked words).

    position: a place among the model's scores (batch, positions, classes), or one for each sample; in explain_text
        also a word of the text, whose first token is meant.
    target: a class index, token id or name, or one for each sample; in explain_text also a token as text, and None for
        the highest there.
    """
    return At(position, target)


def next_token(token: Target = None, position: int | str | Sequence[int] | Tensor = -1) -> At:
    """The score that a language model gives to `token` after what it has read up to `position`.

    token: an id, or one for each sample; in explain_text also its text, as " Paris", and None for the most likely one.
    position: the place of the last token that is read, or one for each sample, as attention_mask.sum(1) - 1 for texts
        that are padded at the end; in explain_text also a word, whose last token is meant.
    """
    return At(position, token, after=True)


def contrast(target: Target, against: Target) -> Contrast:
    """Why the one and not the other: the score of `target` minus the score of `against`, each as explain takes it."""
    return Contrast(target, against)


def answer(start: int | str | None = None, end: int | str | None = None) -> Answer:
    """The score of an answer in question answering: start_logits at `start` plus end_logits at `end`; one will do.

    Both are places of tokens; in explain_text also words of the context.
    """
    return Answer(start, end)


def similarity() -> Similarity:
    """How well each picture fits the text of the same place in the batch, as CLIP scores it (logits_per_image)."""
    return Similarity()


@dataclass(frozen=True, eq=False)
class At(Choice):
    """See `at`; `after` says that the score is that of the following token, see `next_token`."""

    position: int | str | Sequence[int] | Tensor
    target: Target = None
    after: bool = False

    def score(self, trace: Trace, output: Any, labels: Sequence[str] | None, batch: int) -> Tensor:
        scores = before_squash(trace, scores_of(trace, output))
        if scores.dim() != 3 or len(scores) != batch:
            raise InvalidTarget(
                f"the model's scores have shape {tuple(scores.shape)}, no scores at positions (batch, positions, "
                f"classes); leave the position away: target={self.target!r}"
            )
        if self.target is None or callable(self.target):
            raise InvalidTarget(
                f"{self!r}: say which class or token, as relprop.targets.at(3, 1); only explain_text finds the highest"
            )
        labels = labels if labels and len(labels) == scores.shape[2] else None
        if labels is None and isinstance(self.target, str):
            raise InvalidTarget(
                f"the token {self.target!r} is given as text, which only explain_text can look up; give its id, "
                f"tokenizer({self.target!r}, add_special_tokens=False).input_ids[0]"
            )
        places = self._places(batch, scores.shape[1]).to(scores.device)
        index = indices(self.target, scores.detach()[:, 0], labels).to(scores.device)
        with trace:
            there = scores.gather(1, places[:, None, None].expand(-1, 1, scores.shape[2]))[:, 0]
            return there.gather(1, index[:, None])[:, 0]

    def _places(self, batch: int, size: int) -> Tensor:
        """(batch,): the positions, counted from the start."""
        if isinstance(self.position, str):
            raise InvalidTarget(
                f"the position {self.position!r} is a word, which only explain_text can find; give the place of a token"
            )
        given: Any = self.position.tolist() if isinstance(self.position, Tensor) else self.position
        each = list(given) if isinstance(given, Sequence) else [given] * batch
        if len(each) != batch:
            raise InvalidTarget(
                f"got {len(each)} positions for a batch of {batch}; give one for all, or one per sample"
            )
        for place in each:
            if isinstance(place, bool) or not hasattr(place, "__index__") or not -size <= operator.index(place) < size:
                raise InvalidTarget(f"there is no position {place!r}: the model scores {size}, 0 to {size - 1}")
        return torch.tensor([operator.index(place) % size for place in each])


@dataclass(frozen=True, eq=False)
class Contrast(Choice):
    """See `contrast`."""

    target: Target
    against: Target

    def score(self, trace: Trace, output: Any, labels: Sequence[str] | None, batch: int) -> Tensor:
        if self.target is None or self.against is None:
            raise InvalidTarget("contrast: say what is explained and against what, as relprop.targets.contrast(3, 5)")
        mine = select(trace, output, self.target, labels, batch)[0]
        other = select(trace, output, self.against, labels, batch)[0]
        with trace:
            return mine - other


@dataclass(frozen=True)
class Answer(Choice):
    """See `answer`."""

    start: int | str | None = None
    end: int | str | None = None

    def score(self, trace: Trace, output: Any, labels: Sequence[str] | None, batch: int) -> Tensor:
        edges = [("start_logits", self.start), ("end_logits", self.end)]
        given = [(name, place) for name, place in edges if place is not None]
        if not given:
            raise InvalidTarget("answer(): say where it starts or ends, as relprop.targets.answer(5, 7)")
        scores = []
        for name, place in given:
            if isinstance(place, str):
                raise InvalidTarget(f"answer: {place!r} is a word, which only explain_text can find; give its place")
            logits = before_squash(trace, _member(trace, output, name))
            size = logits.shape[1]
            if not -size <= place < size:
                raise InvalidTarget(f"answer: there is no place {place}: the model scores {size}, 0 to {size - 1}")
            index = torch.full((len(logits), 1), operator.index(place) % size, device=logits.device)
            scores.append((logits, index))
        with trace:
            # Gathered, not sliced: each is explained by itself, and they add up even where they nearly cancel.
            found = [logits.gather(1, index)[:, 0] for logits, index in scores]
            return found[0] if len(found) == 1 else found[0] + found[1]


@dataclass(frozen=True)
class Similarity(Choice):
    """See `similarity`."""

    def score(self, trace: Trace, output: Any, labels: Sequence[str] | None, batch: int) -> Tensor:
        logits = _member(trace, output, "logits_per_image")
        if logits.dim() != 2 or logits.shape[0] != logits.shape[1]:
            raise InvalidTarget(
                f"similarity(): there are {logits.shape[0]} pictures for {logits.shape[1]} texts; give one text for "
                'each picture, for one picture and two texts {"pixel_values": pixels.expand(2, -1, -1, -1), ...}'
            )
        with trace:
            return logits.diagonal()


def parts(value: Any) -> list[tuple[str, Any]]:
    """The tensors in an output, with the expression that reaches each: [("['logits']", tensor), ...]."""
    if isinstance(value, Tensor):
        return [("", value)]
    if isinstance(value, dict):
        return [(f"[{k!r}]{e}", t) for k, v in value.items() for e, t in parts(v)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return [(f".{f}{e}", t) for f, v in zip(value._fields, value, strict=True) for e, t in parts(v)]
    if isinstance(value, (list, tuple)):
        return [(f"[{i}]{e}", t) for i, v in enumerate(value) for e, t in parts(v)]
    if is_dataclass(value) and not isinstance(value, type):
        return [(f".{f.name}{e}", t) for f in fields(value) for e, t in parts(getattr(value, f.name))]
    return []


def class_scores(output: Any) -> Tensor | None:
    """The scores of the classes, (classes,), in what a model returned of one sample; None where there are none."""
    found = parts(output)
    tensors = [t for name, t in found if _bare(name) in _SCORES] or [t for _, t in found]
    if len(tensors) != 1 or tensors[0].dim() not in (1, 2) or len(tensors[0]) != 1:
        return None
    scores: Tensor = tensors[0].detach().cpu().reshape(-1)
    return scores


def scores_of(trace: Trace, output: Any) -> Tensor:
    """The one tensor of an output that holds scores depending on the input."""
    found = _live(trace, output)
    named = [(name, t) for name, t in found if _bare(name) in _SCORES]
    if not named and any(_bare(name) == "last_hidden_state" for name, _ in found):
        raise InvalidTarget(
            f"the model returned hidden states ({_listed(found)}) and no scores: it has no head. Load it with one, as "
            "AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True), or say which score to "
            "explain, for example target=lambda output: output['last_hidden_state'][:, 0, 0]"
        )
    if len(found) > 1 and len(named) != 1:
        raise InvalidTarget(
            f"the model returned several tensors ({_listed(found)}). Say which score to explain, for example "
            f"{_example(found)}"
        )
    scores: Tensor = (named or found)[0][1]
    return scores


def _live(trace: Trace, output: Any) -> list[tuple[str, Tensor]]:
    """The parts of an output that depend on the input. Raises InvalidOutput where there is none."""
    found = [(name, t) for name, t in parts(output) if trace.node(t) is not None]
    if not found:
        raise InvalidOutput(
            f"the model returned {_describe(output)}, in which no tensor depends on a floating-point input. The score "
            "must be computed from the input by torch functions"
        )
    return found


def _member(trace: Trace, output: Any, wanted: str) -> Tensor:
    """The tensor of this name in an output. Raises InvalidTarget where there is none."""
    found = _live(trace, output)
    for name, tensor in found:
        if _bare(name) == wanted:
            return tensor
    raise InvalidTarget(f"the target needs {wanted}, and the model returned {_listed(found) or 'one tensor'}")


def _bare(name: str) -> str:
    return name.strip("[]'.")


def _listed(found: Sequence[tuple[str, Tensor]]) -> str:
    return ", ".join(f"output{name} {tuple(t.shape)}" for name, t in found)


def _example(found: Sequence[tuple[str, Tensor]]) -> str:
    """A target that suits one of these parts of an output."""
    names = {_bare(name) for name, _ in found}
    if {"start_logits", "end_logits"} <= names:
        return "target=relprop.targets.answer(start, end), by the places of the answer's first and last token"
    if "logits_per_image" in names:
        return "target=relprop.targets.similarity(), how well each picture fits the text of the same place"
    return f"target=lambda output: output{next((n for n, t in found if t.dim() > 1), found[0][0])}[:, 0]"


def before_squash(trace: Trace, tensor: Tensor) -> Tensor:
    """The tensor before a final softmax, log_softmax or sigmoid, which only squash the score."""
    node = trace.node(tensor)
    while node is not None and node.unsquashed is not None:
        trace.notes["the final softmax or sigmoid was left out: the score before it was explained"] = None
        tensor = node.unsquashed
        node = trace.node(tensor)
    return tensor


def _one_score(output: Any, scores: Tensor) -> str:
    """A target that makes one score per sample of scores at positions."""
    name = next((name for name, tensor in parts(output) if tensor.shape == scores.shape), "")
    if scores.dim() > 3:
        return f"target=lambda output: output{name}[:, 3].sum((1, 2))"
    return (
        f"target=lambda output: output{name}[:, position, 3], or relprop.targets.at(position, 3); of a language model "
        "target=relprop.targets.next_token(id)"
    )


def select(
    trace: Trace, output: Any, target: Target, labels: Sequence[str] | None, batch: int
) -> tuple[Tensor, Tensor | None]:
    """(score (batch,), class indices (batch,) or None for a callable or a Choice)."""
    if isinstance(target, Choice):
        return target.score(trace, output, labels, batch), None
    if callable(target) and not isinstance(target, Tensor):
        with trace:
            score = target(output)
        if not isinstance(score, Tensor) or trace.node(score) is None:
            raise InvalidTarget(
                f"the target function returned {_describe(score)}, which does not depend on the input. It must return "
                "a tensor of one score per sample, computed from its argument"
            )
        score = before_squash(trace, score)
        if score.dim() == 0 and batch == 1:
            with trace:
                score = score[None]
        if score.shape != (batch,):
            raise InvalidTarget(
                f"the target function returned shape {tuple(score.shape)} for a batch of {batch}; it must return one "
                f"score per sample, shape ({batch},)"
            )
        return score, None
    scores = before_squash(trace, scores_of(trace, output))
    if scores.dim() == 0 or scores.shape[0] != batch:
        raise InvalidOutput(
            f"the model returned shape {tuple(scores.shape)} for an input with first dimension {batch}: the first "
            "dimension of both must be the batch. Write x.unsqueeze(0) for a single sample; for a model that takes "
            "(time, batch, ...), relprop.explain(lambda x: model(x.transpose(0, 1)), x.transpose(0, 1)); or a target "
            "function"
        )
    if scores.dim() > 2:
        raise InvalidTarget(
            f"the model returned shape {tuple(scores.shape)}, more than one score per class. Say how to make one score "
            f"per sample, for example {_one_score(output, scores)}"
        )
    values = scores.detach()
    index = indices(target, values[:, None] if values.dim() == 1 else values, labels)
    if scores.dim() == 1:
        return scores, index
    places = index[:, None].to(values.device)
    with trace:
        return scores.gather(1, places).squeeze(1), index


def indices(target: Target, scores: Tensor, labels: Sequence[str] | None) -> Tensor:
    """The class index of each sample, shape (batch,), from None (the highest score), indices or names."""
    batch, classes = scores.shape
    if labels and len(labels) != classes:
        raise InvalidTarget(f"there are {len(labels)} class names for {classes} scores; give labels=[...], one a score")
    if target is None:
        return scores.argmax(1)
    if isinstance(target, Tensor):
        if target.is_floating_point() or target.dtype == torch.bool or target.dim() > 1:
            raise InvalidTarget(
                f"the target tensor has dtype {target.dtype} and shape {tuple(target.shape)}; expected integers of "
                f"shape ({batch},)"
            )
        target = target.tolist()
    if isinstance(target, np.ndarray) and target.ndim == 1:
        target = target.tolist()
    several = isinstance(target, Sequence) and not isinstance(target, str)
    each = list(target) if several else [target] * batch  # type: ignore[arg-type]
    if len(each) != batch:
        raise InvalidTarget(
            f"got {len(each)} targets for a batch of {batch}. Give one for all, or one per sample; for several targets "
            "of the same samples write targets=[...]"
        )
    return torch.tensor([_index(t, classes, labels) for t in each])


def _index(target: Any, classes: int, labels: Sequence[str] | None) -> int:
    if isinstance(target, str):
        if not labels:
            raise InvalidTarget(
                f"the target {target!r} is a name, but the model has no class names. Give labels=[...] or an index"
            )
        if target not in labels:
            close = difflib.get_close_matches(target, labels, n=3)
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else _listing(labels)
            raise InvalidTarget(f"there is no class named {target!r}.{hint}")
        target = list(labels).index(target)
    if isinstance(target, bool) or not hasattr(target, "__index__"):
        raise InvalidTarget(
            f"got {target!r} ({type(target).__name__}) as a target; expected a class index, a class name, or a function"
        )
    index = int(operator.index(target))
    if not -classes <= index < classes:
        raise InvalidTarget(f"the target {index} is out of range: the model has {classes} scores, 0 to {classes - 1}")
    return index % classes


def _listing(labels: Sequence[str]) -> str:
    return f" The names are: {', '.join(labels)}." if len(labels) <= 10 else f" There are {len(labels)} names."


def require_finite(score: Tensor) -> None:
    """NonFinite if a score is NaN or infinite."""
    finite = torch.isfinite(score.detach())
    if known(~finite.all()):
        bad = (~finite).nonzero().flatten().tolist()
        raise NonFinite(
            f"the score of sample {bad[0]} is {score[bad[0]].item()}, so there is nothing to redistribute. Check the "
            "input's scale and the model's parameters (torch.isfinite)"
        )


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    return f"a {type(value).__name__}"
