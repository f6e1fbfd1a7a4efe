"""Weights modified for a rule, computed once and used for many inputs."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from relprop.engine.linear_map import LinearMap

_SAMPLES = 4096


@dataclass
class _Folded:
    """What was made of one weight tensor under one folded scale."""

    linear: LinearMap
    scale: Tensor | None
    made: dict[str, Tensor] = field(default_factory=dict)

    def matches(self, linear: LinearMap, scale: Tensor | None) -> bool:
        if scale is None or self.scale is None:
            return scale is self.scale
        return self.linear == linear and torch.equal(self.scale, scale)


@dataclass
class _Entry:
    weight: weakref.ref[Tensor]
    mark: tuple[int, int, Tensor]
    folded: list[_Folded] = field(default_factory=list)


class PreparedWeights:
    """Effective and modified weights by weight tensor, valid as long as that tensor lives and is not changed."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._transposed: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}

    def transposed(self, weight: Tensor) -> Tensor:
        """A view of the weights with both axes swapped: the same object each time, for the same weights."""
        key = id(weight)
        known = self._transposed.get(key)
        if known is None or known[0]() is not weight or known[1].data_ptr() != weight.data_ptr():
            views = self._transposed
            known = (weakref.ref(weight, lambda _: views.pop(key, None)), weight.detach().T)
            views[key] = known
        return known[1]

    def get(
        self,
        weight: Tensor,
        scale: Tensor | None,
        linear: LinearMap,
        dtype: torch.dtype,
        name: str,
        make: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """make(scale * W), from memory when W and the scale are what they were."""
        folded = self._folded(weight, scale, linear)
        key = f"{dtype} {name}"
        if key not in folded.made:
            effective = weight.detach().to(dtype)
            if scale is not None:
                effective = linear.scaled(effective, scale.to(dtype))
            folded.made[key] = make(effective)
        return folded.made[key]

    def _folded(self, weight: Tensor, scale: Tensor | None, linear: LinearMap) -> _Folded:
        key = id(weight)
        mark = (weight._version, weight.data_ptr(), _sample(weight))
        entry = self._entries.get(key)
        if entry is None or entry.weight() is not weight or not _same(entry.mark, mark):
            entries = self._entries
            entry = _Entry(weakref.ref(weight, lambda _: entries.pop(key, None)), mark)
            entries[key] = entry
        for folded in entry.folded:
            if folded.matches(linear, scale):
                return folded
        # Few scales are in use at a time; older ones belong to batch norms trained since.
        entry.folded = [*entry.folded[-3:], _Folded(linear, scale)]
        return entry.folded[-1]


def _sample(weight: Tensor) -> Tensor:
    """A few of the values, because changes through `.data` go past the version counter."""
    flat = weight.detach().flatten()
    return flat[:: max(1, flat.numel() // _SAMPLES)].clone()


def _same(a: tuple[int, int, Tensor], b: tuple[int, int, Tensor]) -> bool:
    return a[:2] == b[:2] and torch.equal(a[2], b[2])
