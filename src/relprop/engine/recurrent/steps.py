"""The time steps of a batch of sequences, padded or packed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Steps:
    """Which rows of packed data (rows, features) belong to which time step.

    sizes[t]: how many sequences have a step t, the longest ones first; without packing that is the batch size.
    """

    sizes: tuple[int, ...]

    @property
    def batch(self) -> int:
        return self.sizes[0]

    def forward(self, reverse: bool) -> Iterator[tuple[slice, int]]:
        """(rows, number of sequences) of each time step, in the order in which the layer takes them."""
        start, spans = 0, []
        for size in self.sizes:
            spans.append((slice(start, start + size), size))
            start += size
        return iter(reversed(spans) if reverse else spans)

    def backward(self, reverse: bool) -> Iterator[tuple[slice, int]]:
        """The same, the layer's last step first."""
        return self.forward(not reverse)

    def each(self, descending: bool, *packed: Tensor) -> Iterator[tuple[int, list[Tensor]]]:
        """(number of sequences, the rows of each packed tensor) of each time step, from the first or from the last."""
        views = [torch.split_with_sizes(t, self.sizes) for t in packed]
        times = range(len(self.sizes))
        for t in reversed(times) if descending else times:
            yield self.sizes[t], [view[t] for view in views]

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
        if len(before) >= size:
            return before[:size]
        return torch.cat([before, initial[len(before) : size]])

    def last_rows(self, reverse: bool) -> Tensor:
        """The row of each sequence's last step in the order in which the layer takes them; int64, (batch,)."""
        if reverse:
            return torch.arange(self.batch)
        lengths = (torch.tensor(self.sizes)[:, None] > torch.arange(self.batch)).sum(0)
        starts = torch.tensor((0, *self.sizes)).cumsum(0)
        return starts[lengths - 1] + torch.arange(self.batch)
