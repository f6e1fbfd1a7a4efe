"""The time steps of a batch of sequences, padded or packed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from relprop.asking import recording


@dataclass(frozen=True)
class Steps:
    """Which rows of packed data (rows, features) belong to which time step.

    sizes[t]: how many sequences have a step t, the longest ones first; without packing that is the batch size.
    """

    sizes: tuple[int, ...]

    @property
    def batch(self) -> int:
        return self.sizes[0]

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first row of each step; at the end the number of all rows."""
        return tuple(accumulate(self.sizes, initial=0))

    def forward(self, reverse: bool) -> Iterator[tuple[slice, int]]:
        """(rows, number of sequences) of each time step, in the order in which the layer takes them."""
        spans = [(slice(start, start + size), size) for start, size in zip(self.starts, self.sizes, strict=False)]
        return iter(reversed(spans) if reverse else spans)

    def backward(self, reverse: bool) -> Iterator[tuple[slice, int]]:
        """The same, the layer's last step first."""
        return self.forward(not reverse)

    def ordered(self, descending: bool) -> tuple[int, ...]:
        """The number of sequences of each time step, from the first step or from the last."""
        return self.sizes[::-1] if descending else self.sizes

    def each(self, packed: Tensor, descending: bool = False) -> Sequence[Tensor]:
        """The rows of each time step, (..., number of sequences, features), from the first step or from the last."""
        views = torch.split_with_sizes(packed, self.sizes, -2)
        return views[::-1] if descending else views

    def previous(self, states: Tensor, initial: Tensor, reverse: bool) -> Tensor:
        """The state from which each row's step starts, (rows, d): the one before it, or the sequence's initial one."""
        if self.sizes[-1] == self.batch:
            return torch.cat([states[self.batch :], initial] if reverse else [initial, states[: -self.batch]])
        found: list[Tensor] = []
        before = states[:0]
        for rows, size in self.forward(reverse):
            found.append(self.continued(before, initial, size))
            before = states[rows]
        return torch.cat(found[::-1] if reverse else found)

    @staticmethod
    def continued(before: Tensor, initial: Tensor, size: int) -> Tensor:
        """The states of the sequences that go on, and the initial ones of those that begin."""
        if before.shape[0] >= size:
            return before[:size]
        return torch.cat([before, initial[before.shape[0] : size]])

    def last(self, states: Tensor, reverse: bool) -> Tensor:
        """The states after the step that the layer takes last."""
        return states[: self.sizes[0]] if reverse else states[self.starts[-2] :]

    def last_rows(self, reverse: bool) -> Tensor:
        """The row of each sequence's last step in the order in which the layer takes them; int64, (batch,)."""
        if reverse:
            return torch.arange(self.batch)
        if self.sizes[-1] == self.batch:
            return torch.arange(self.batch) + self.batch * (len(self.sizes) - 1)
        lengths = (torch.tensor(self.sizes)[:, None] > torch.arange(self.batch)).sum(0)
        starts = torch.tensor(self.starts)
        return starts[lengths - 1] + torch.arange(self.batch)

    @property
    def whole(self) -> Span:
        """All time steps."""
        return Span(self, 0, slice(0, self.starts[-1]))

    def spans(self, rows: int) -> list[Span]:
        """All time steps, cut into spans of at most so many rows or of one step, from the first to the last."""
        if recording():  # of a program, whose batch may have any size
            return [self.whole]
        found, first = [], 0
        for t in range(1, len(self.sizes) + 1):
            if t == len(self.sizes) or self.starts[t + 1] - self.starts[first] > rows:
                found.append(Span(Steps(self.sizes[first:t]), first, slice(self.starts[first], self.starts[t])))
                first = t
        return found


@dataclass(frozen=True)
class Span:
    """Consecutive time steps, from step `first` of all, and the rows that belong to them."""

    steps: Steps
    first: int
    rows: slice

    def of(self, data: Tensor) -> Tensor:
        """These steps' rows of data (steps, batch, features) or, packed, (rows, features)."""
        if data.dim() == 2:
            return data[self.rows]
        return data[self.first : self.first + len(self.steps.sizes)].reshape(-1, data.shape[-1])
