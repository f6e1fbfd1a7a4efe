"""Word deletion: how soon does a decision fall, or a mistake go away, as words are deleted by their relevance?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from relprop.errors import InvalidInput
from relprop.evaluate.explanations import (
    Explanation,
    Progress,
    checked_explanations,
    class_scores,
    ranks,
    relevance_of,
)
from relprop.evaluate.measurement import RANDOM, Curves, Measurement, Table
from relprop.models import refuse_training

Deletion = Literal["zero", "remove"]


@dataclass(frozen=True)
class WordDeletion(Measurement):
    """What `word_deletion` measured.

    Attributes:
        correct: accuracy on what was classified correctly at first, words deleted from the most relevant on: the
            faster it falls, the better the order.
        false: accuracy on what was classified falsely, words deleted from the least relevant on: the faster it
            rises, the better.
        samples: how many there were of each, (correct, false).
        accuracy: the share of all samples, those included that nothing was deleted from, that was classified correctly.
    """

    correct: Curves
    false: Curves
    samples: tuple[int, int]
    accuracy: float

    def curves(self) -> tuple[Curves, ...]:
        return tuple(each for each, count in zip((self.correct, self.false), self.samples, strict=True) if count)

    def tables(self) -> tuple[Table, ...]:
        return tuple(each.table() for each in self.curves())


def word_deletion(
    model: Callable[..., Any],
    x: Tensor | Sequence[Tensor],
    labels: Tensor | Sequence[int],
    explanations: Mapping[str, Explanation],
    *,
    max_deletions: int = 10,
    deletion: Deletion = "zero",
    words: Tensor | Sequence[Tensor] | None = None,
    most: int | None = None,
    random_orders: int = 10,
    seed: int = 0,
    batch_size: int = 100,
    progress: Progress | None = None,
) -> WordDeletion:
    """The model's accuracy after words were deleted in the order of their relevance.

    As in Arras et al. 2017, "Explaining recurrent neural network predictions in sentiment analysis": what is explained
    is the score of the true class; from a sample classified correctly words are deleted in decreasing order of
    relevance, from one classified falsely in increasing order, the strongest evidence against the truth first. The
    order is set once, before the first deletion. Where words are equally relevant, the earlier one goes first.

    Args:
        model: from a batch to scores (batch, classes), in evaluation mode.
        x: token ids (samples, tokens), padded with 0, or values (samples, time, features); or a list of samples of
            different lengths, which are then batched by length and filled up with 0 at the end.
        labels: (samples,), the true classes.
        explanations: by name, a function of (batch, labels) that gives relevance or an Attribution, such as
            relprop.Explainer(model, method="gradient"); or the relevance itself, in the form of `x`. Features of a
            word or time step are summed.
        max_deletions: samples with fewer words are left out.
        deletion: "zero" puts the id 0, whose vector should be zero, or zeros in the word's place; "remove" closes the
            gap and fills up with 0 at the end.
        words: in the form of `x`, which positions may be deleted; by default ids other than 0, and time steps that are
            not all zero.
        most: delete from at most so many of the samples classified correctly, and of those falsely: the first ones.
        random_orders: how many random orders the floor is the mean of; 0 for no floor.
        progress: called with (samples done, samples to do).

    Raises InvalidInput for arguments that don't fit, and what the explanations raise.
    """
    refuse_training(model)
    samples, truth = _samples(x), torch.as_tensor(labels)
    _check(samples, truth, max_deletions, deletion, random_orders)
    explained = checked_explanations(explanations, len(samples))
    deletable = [_words(each) for each in samples] if words is None else _given_words(samples, list(words))
    near = sorted(range(len(samples)), key=lambda i: len(samples[i]))
    right = torch.zeros(len(samples), dtype=torch.bool)
    for chosen in _batches(near, batch_size):
        right[chosen] = class_scores(model, _padded(samples, chosen)).argmax(1).cpu() == truth[chosen]
    used = _used(right, [int(each.sum()) for each in deletable], max_deletions, most)
    hits = {name: torch.zeros(2, max_deletions + 1) for name in (*explained, *([RANDOM] if random_orders else []))}
    chance = torch.Generator().manual_seed(seed)
    todo, done = [i for i in near if used[i]], 0
    for chosen in _batches(todo, batch_size):
        x = _padded(samples, chosen)
        work = _Work(model, x, truth[chosen], right[chosen], _padded(deletable, chosen), max_deletions, deletion)
        for name, explanation in explained.items():
            keys = relevance_of(name, explanation, x, truth[chosen].to(x.device), chosen, 2).cpu()
            hits[name] += work.hits(keys.flatten(2).sum(2) if keys.dim() > 2 else keys)
        for _ in range(random_orders):
            keys = torch.rand(work.words.shape, generator=chance, dtype=torch.float64)
            hits[RANDOM] += work.hits(keys) / random_orders
        done += len(chosen)
        if progress is not None:
            progress(done, len(todo))
    sizes = (int((used & right).sum()), int((used & ~right).sum()))
    return WordDeletion(
        _curves("classified correctly", "most", sizes[0], {name: found[0] for name, found in hits.items()}),
        _curves("classified falsely", "least", sizes[1], {name: found[1] for name, found in hits.items()}),
        sizes,
        float(right.double().mean()),
    )


def delete(x: Tensor, deleted: Tensor, deletion: Deletion = "zero") -> Tensor:
    """A batch (batch, positions) or (batch, positions, features) without the positions where `deleted` is True.

    deletion: as for `word_deletion`.
    """
    wide = deleted.to(x.device).reshape(*deleted.shape, *[1] * (x.dim() - 2))
    zeroed = x.masked_fill(wide, 0)
    if deletion == "zero":
        return zeroed
    kept_first = wide.to(torch.uint8).argsort(dim=1, stable=True)
    return zeroed.gather(1, kept_first.expand_as(x))


@dataclass(frozen=True)
class _Work:
    """A batch to delete from: which samples were classified correctly, which of their positions are words."""

    model: Callable[..., Any]
    x: Tensor
    labels: Tensor
    right: Tensor
    words: Tensor
    deletions: int
    deletion: Deletion

    def hits(self, keys: Tensor) -> Tensor:
        """(2, deletions + 1): how many are classified correctly after each number of deletions, of those that were at
        first, whose words go from the largest of the keys (batch, positions) on, and of the others, from the smallest.
        """
        sign = torch.where(self.right, 1.0, -1.0).double()[:, None]
        order = ranks((sign * keys).masked_fill(~self.words, -torch.inf))
        counts = [torch.stack([self.right.sum(), torch.tensor(0)])]
        for k in range(1, self.deletions + 1):
            answer = class_scores(self.model, delete(self.x, order < k, self.deletion)).argmax(1).cpu()
            hit = answer == self.labels
            counts.append(torch.stack([(hit & self.right).sum(), (hit & ~self.right).sum()]))
        return torch.stack(counts, 1).float()


def _used(right: Tensor, counts: list[int], least: int, most: int | None) -> Tensor:
    """Which samples are deleted from: long enough, and the first so many of each kind."""
    long = torch.tensor(counts) >= least
    used = torch.zeros_like(right)
    for kind in (right, ~right):
        used[(long & kind).nonzero()[:most, 0]] = True
    if not bool(used.any()):
        raise InvalidInput(
            f"no sample has {least} words to delete; the longest has {max(counts)}. Write max_deletions={max(counts)}"
        )
    return used


def _curves(kind: str, first: str, samples: int, counted: dict[str, Tensor]) -> Curves:
    values = {name: tuple((found.double() / max(1, samples)).tolist()) for name, found in counted.items()}
    steps = tuple(range(len(next(iter(values.values())))))
    return Curves(f"{samples:,} {kind}: the {first} relevant first", steps, values, "words deleted", "accuracy")


def _samples(x: Any) -> list[Tensor]:
    if isinstance(x, Tensor) and x.dim() in (2, 3):
        return list(x)
    if isinstance(x, (list, tuple)) and x and all(isinstance(each, Tensor) and each.dim() in (1, 2) for each in x):
        return list(x)
    given = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
    raise InvalidInput(
        f"x: got {given}, expected a tensor (samples, tokens) or (samples, time, features), or a list of tensors, one "
        "a sample"
    )


def _check(samples: list[Tensor], labels: Tensor, deletions: int, deletion: str, random_orders: int) -> None:
    if labels.shape != (len(samples),) or labels.is_floating_point():
        raise InvalidInput(
            f"labels: got shape {tuple(labels.shape)} and dtype {labels.dtype}, expected one class index for each of "
            f"{len(samples)} samples"
        )
    if deletions < 1:
        raise InvalidInput(f"max_deletions: got {deletions}, expected at least 1")
    if random_orders < 0:
        raise InvalidInput(f"random_orders: got {random_orders}, expected at least 0")
    if deletion not in ("zero", "remove"):
        raise InvalidInput(f"deletion: got {deletion!r}, expected 'zero' or 'remove'")


def _words(sample: Tensor) -> Tensor:
    return sample != 0 if sample.dim() == 1 else (sample != 0).any(1)


def _given_words(samples: list[Tensor], words: list[Tensor]) -> list[Tensor]:
    if len(words) != len(samples) or any(
        w.dtype != torch.bool or w.shape != s.shape[:1] for w, s in zip(words, samples, strict=False)
    ):
        raise InvalidInput("words: expected a boolean for each position of each sample, in the form of x")
    return words


def _padded(samples: Sequence[Tensor], chosen: Sequence[int]) -> Tensor:
    return pad_sequence([samples[i] for i in chosen], batch_first=True)


def _batches(indices: list[int], size: int) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]
