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

    def previous(self, states: Tensor, initial: Tensor, reverse: bool) -> Tensor:
        """The state from which each row's step starts, (rows, d): the one before it, or the sequence's initial one."""
        found: list[Tensor] = []
        before = states[:0]
        for rows, size in self.forward(reverse):
            found.append(torch.cat([before[:size], initial[len(before) : size]]))
            before = states[rows]
        return torch.cat(found[::-1] if reverse else found)

    def last_rows(self, reverse: bool) -> Tensor:
        """The row of each sequence's last step in the order in which the layer takes them; int64, (batch,)."""
        last = torch.arange(self.batch)
        for rows, size in () if reverse else self.forward(reverse):
            last[:size] = torch.arange(rows.start, rows.stop)
        return last
