"""Weights modified for a rule, computed once and used for many inputs."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from relprop.asking import unrecorded
from relprop.engine.linear_map import LinearMap

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass
class Folded:
    """What was made of one weight tensor under one folded scale."""

    linear: LinearMap
    scale: Tensor | None
    made: dict[str, Tensor] = field(default_factory=dict)

    def matches(self, linear: LinearMap, scale: Tensor | None) -> bool:
        if scale is None or self.scale is None:
            return scale is self.scale
        return self.linear == linear and torch.equal(self.scale, scale)

    def get(self, weight: Tensor, dtype: torch.dtype, name: str, make: Callable[[Tensor], Tensor]) -> Tensor:
        """make(scale * W), from memory if it was made before."""
        key = f"{dtype} {name}"
        if key not in self.made:
            with unrecorded():
                effective = weight.detach().to(dtype)
                if self.scale is not None:
                    effective = self.linear.scaled(effective, self.scale.to(dtype))
                self.made[key] = make(effective)
        return self.made[key]


@dataclass
class _Entry:
    weight: weakref.ref[Tensor]
    mark: tuple[int, int, int]
    folded: list[Folded] = field(default_factory=list)


class PreparedWeights:
    """Effective and modified weights by weight tensor, valid as long as that tensor lives and is not changed."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._transposed: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}

    @property
    def nbytes(self) -> int:
        """The memory of all that was made."""
        made = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for entry in self._entries.values()
            for folded in entry.folded
            for tensor in folded.made.values()
        }
        return sum(made.values())

    def transposed(self, weight: Tensor) -> Tensor:
        """A view of the weights with both axes swapped: the same object each time, for the same weights."""
        key = id(weight)
        known = self._transposed.get(key)
        if known is None or known[0]() is not weight or known[1].data_ptr() != weight.data_ptr():
            views = self._transposed
            known = (weakref.ref(weight, lambda _: views.pop(key, None)), weight.detach().T)
            views[key] = known
        return known[1]

    def folded(self, weight: Tensor, scale: Tensor | None, linear: LinearMap) -> Folded:
        """What was made of these weights under this scale, if they are what they were; else a fresh start."""
        key = id(weight)
        mark = (weight._version, weight.data_ptr(), checksum(weight))
        entry = self._entries.get(key)
        if entry is None or entry.weight() is not weight or entry.mark != mark:
            entries = self._entries
            entry = _Entry(weakref.ref(weight, lambda _: entries.pop(key, None)), mark)
            entries[key] = entry
        for known in entry.folded:
            if known.matches(linear, scale):
                return known
        # Few scales are in use at a time; older ones belong to batch norms trained since.
        entry.folded = [*entry.folded[-3:], Folded(linear, scale)]
        return entry.folded[-1]


def checksum(weight: Tensor) -> int:
    """The sum of the values' bits as integers: changes through `.data` go past the version counter."""
    bits = weight.detach()
    if bits.is_contiguous() and not any(n * bits.element_size() % 8 for n in (bits.numel(), bits.storage_offset())):
        return int(bits.reshape(-1).view(torch.int64).sum())  # read as they lie, without a copy as wider integers
    return int(bits.view(_BITS[weight.element_size()]).sum(dtype=torch.int64))
