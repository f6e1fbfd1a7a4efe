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
    checked_explanations,
    class_scores,
    ranks,
    relevance_of,
)
from relprop.evaluate.measurement import RANDOM, Curves, Measurement, Table, leads, with_error
from relprop.models.prepare import refuse_training
from relprop.progress import Progress, told

Deletion = Literal["zero", "remove"]
NO_WORD = -1  # at a position from which nothing may be deleted


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
        return (*(each.table() for each in self.curves()), self._areas())

    def _areas(self) -> Table:
        """The mean accuracy over the steps, and how far the first explanation is ahead."""
        first = next(iter(self.correct.values))
        kinds = (("classified correctly", self.correct, -1), ("classified falsely", self.false, 1))
        columns: list[tuple[str, dict[str, str]]] = []
        for (kind, curves, better), count in zip(kinds, self.samples, strict=True):
            if count:
                signed = {name: [better * value for value in area] for name, area in curves.areas.items()}
                columns.append((kind, {name: with_error(area) for name, area in curves.areas.items()}))
                columns.append((f"lead of {first}", leads(signed)))
        rows = tuple((name, *(texts[name] for _, texts in columns)) for name in self.correct.values)
        title = f"Mean accuracy over the deletions 0 to {self.correct.steps[-1]}, ± standard error"
        return Table(title, ("", *(head for head, _ in columns)), rows)


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
    progress: bool | Progress | None = None,
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
        words: in the form of `x`, booleans, which positions may be deleted; or the number of each position's word,
            negative where nothing may be deleted, for words of several tokens, whose relevance is summed and which are
            deleted as a whole. By default each id other than 0, and each time step that is not all zero, is a word.
        most: delete from at most so many of the samples classified correctly, and of those falsely: the first ones.
        random_orders: how many random orders the floor is the mean of; 0 for no floor.
        progress: True for a bar on a terminal or in a notebook, or a function of (samples done, samples to do).

    Raises InvalidInput for arguments that don't fit, and what the explanations raise.
    """
    refuse_training(model)
    samples, truth = _samples(x), torch.as_tensor(labels)
    _check(samples, truth, max_deletions, deletion, random_orders)
    explained = checked_explanations(explanations, len(samples))
    numbers = [_numbered(each) for each in (map(_words, samples) if words is None else _given(samples, list(words)))]
    near = sorted(range(len(samples)), key=lambda i: len(samples[i]))
    right = torch.zeros(len(samples), dtype=torch.bool)
    for chosen in _batches(near, batch_size):
        right[chosen] = class_scores(model, _padded(samples, chosen)).argmax(1).cpu() == truth[chosen]
    used = _used(right, [max(each.tolist(), default=NO_WORD) + 1 for each in numbers], max_deletions, most)
    names = (*explained, *([RANDOM] if random_orders else []))
    hits = {name: torch.zeros(len(samples), max_deletions + 1, dtype=torch.float64) for name in names}
    chance = torch.Generator().manual_seed(seed)
    todo = list(_batches([i for i in near if used[i]], batch_size))
    for chosen in told(todo, progress, "deleting words", len):
        x = _padded(samples, chosen)
        places = _padded(numbers, chosen, NO_WORD)
        work = _Work(model, x, truth[chosen], right[chosen], places, max_deletions, deletion)
        for name, explanation in explained.items():
            keys = relevance_of(name, explanation, x, truth[chosen].to(x.device), chosen, 2).cpu()
            hits[name][chosen] = work.hits(work.sums(keys.flatten(2).sum(2) if keys.dim() > 2 else keys))
        for _ in range(random_orders):
            keys = torch.rand(work.words.shape, generator=chance, dtype=torch.float64)
            hits[RANDOM][chosen] += work.hits(keys) / random_orders
    correct, false = used & right, used & ~right
    return WordDeletion(
        _curves("classified correctly", "most", {name: found[correct] for name, found in hits.items()}),
        _curves("classified falsely", "least", {name: found[false] for name, found in hits.items()}),
        (int(correct.sum()), int(false.sum())),
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
    """A batch to delete from: which samples were classified correctly, and the word at each position, from 0 on."""

    model: Callable[..., Any]
    x: Tensor
    labels: Tensor
    right: Tensor
    words: Tensor
    deletions: int
    deletion: Deletion

    def sums(self, relevance: Tensor) -> Tensor:
        """(batch, positions): the relevance of each word, that of its positions (batch, positions) summed."""
        inside = self.words != NO_WORD
        return torch.zeros_like(relevance).scatter_add(1, self.words.clamp(min=0), relevance * inside)

    def hits(self, keys: Tensor) -> Tensor:
        """(batch, deletions + 1): 1 where a sample is classified correctly after so many words were deleted.

        From what was classified correctly at first words go from the largest of their keys (batch, positions) on, from
        the others from the smallest.
        """
        sign = torch.where(self.right, 1.0, -1.0).double()[:, None]
        there = torch.arange(keys.shape[1]) <= self.words.amax(1, keepdim=True)
        order = ranks((sign * keys).masked_fill(~there, -torch.inf))
        place = order.gather(1, self.words.clamp(min=0)).masked_fill(self.words == NO_WORD, self.deletions)
        found = [self.right]
        for k in range(1, self.deletions + 1):
            answer = class_scores(self.model, delete(self.x, place < k, self.deletion)).argmax(1).cpu()
            found.append(answer == self.labels)
        return torch.stack(found, 1).double()


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


def _curves(kind: str, first: str, hits: dict[str, Tensor]) -> Curves:
    samples = len(next(iter(hits.values())))
    return Curves.of(f"{samples:,} {kind}: the {first} relevant first", hits, "words deleted", "accuracy")


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


def _given(samples: list[Tensor], words: list[Tensor]) -> list[Tensor]:
    if len(words) != len(samples) or any(
        w.dtype not in (torch.bool, torch.int64) or w.shape != s.shape[:1] for w, s in zip(words, samples, strict=False)
    ):
        raise InvalidInput(
            "words: expected a boolean, or the number of a word (int64), for each position of each sample, in the form "
            "of x"
        )
    return words


def _numbered(words: Tensor) -> Tensor:
    """The word at each position, counted from 0 on without gaps; NO_WORD where nothing may be deleted."""
    if words.dtype == torch.bool:
        words = torch.where(words, torch.arange(len(words)), NO_WORD)
    inside = words >= 0
    numbers = torch.full_like(words, NO_WORD)
    numbers[inside] = torch.unique(words[inside], return_inverse=True)[1]
    return numbers


def _padded(samples: Sequence[Tensor], chosen: Sequence[int], filled: int = 0) -> Tensor:
    return pad_sequence([samples[i] for i in chosen], batch_first=True, padding_value=filled)


def _batches(indices: list[int], size: int) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]
