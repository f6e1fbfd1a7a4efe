"""Weights modified for a rule, computed once and used for many inputs."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

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
    mark: tuple[object, ...]
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
            known = (weakref.ref(weight, self._forgetting(key)), weight.detach().T)
            self._transposed[key] = known
        return known[1]

    def folded(self, weight: Tensor, scale: Tensor | None, linear: LinearMap) -> Folded:
        """What was made of these weights under this scale, if they are what they were; else a fresh start."""
        key = id(weight)
        mark = (weight._version, weight.data_ptr(), checksum(weight))
        entry = self._entries.get(key)
        if entry is None or entry.weight() is not weight or entry.mark != mark:
            entry = _Entry(weakref.ref(weight, self._forgetting(key)), mark)
            self._entries[key] = entry
        for known in entry.folded:
            if known.matches(linear, scale):
                return known
        # Few scales are in use at a time; older ones belong to batch norms trained since.
        entry.folded = [*entry.folded[-3:], Folded(linear, scale)]
        return entry.folded[-1]

    def _forgetting(self, key: int) -> Callable[[object], None]:
        """What forgets the weights of this id when they are gone. It does not keep what is held here alive: in a cycle
        it would outlive its explainer until Python looks for cycles, which it does by objects, not by their memory."""
        held = weakref.ref(self)

        def forget(_: object) -> None:
            prepared = held()
            if prepared is not None:
                prepared._entries.pop(key, None)
                prepared._transposed.pop(key, None)

        return forget


# Up to this many bytes each word is told apart by a factor of its own; beyond, that would cost too much.
_SMALL = 1 << 18
# The weights of places in a row.
_ROW = 1024


def checksum(tensor: Tensor) -> tuple[int, str]:
    """What changes with the values, also where they are changed through `.data`, past the version counter.

    Of small tensors, the sum of all words of 4 bytes, each times a factor of its own. Of large ones the sum of their
    bits, in which one change shows, and that of their values, each weighed by its place, in which many show that
    cancel in the other (signs, places).
    """
    with unrecorded():
        values = tensor.detach().reshape(-1)
        size = values.numel() * values.element_size()
        if size <= _SMALL and size % 4 == 0 and values.storage_offset() * values.element_size() % 4 == 0:
            words = values.view(torch.int32)
            return int((words.long() * _factors(words.device)[: len(words)]).sum()), ""
        return _bits(values), repr(_weighed(values))


@lru_cache(maxsize=4)
def _factors(device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(-(2**62), 2**62, (_SMALL // 4,), generator=generator) * 2 + 1).to(device)


def _bits(values: Tensor) -> int:
    if not any(n * values.element_size() % 8 for n in (values.numel(), values.storage_offset())):
        return int(values.view(torch.int64).sum())  # read as they lie, without a copy as wider integers
    return int(values.view(_BITS[values.element_size()]).sum(dtype=torch.int64))


def _weighed(values: Tensor) -> float:
    """sum_i w_i x_i, in rows, so that there are few weights."""
    values = values if values.element_size() >= 4 and values.is_floating_point() else values.float()
    whole = len(values) - len(values) % _ROW
    rows = (values[:whole].view(-1, _ROW) @ _places(_ROW, values)).double()
    rest = values[whole:].double()
    return float(rows @ _places(len(rows), rows) + rest @ _places(len(rest), rest))


def _places(count: int, like: Tensor) -> Tensor:
    """A weight for each place, between 1 and 2 and in no order."""
    return 1 + (torch.arange(count, dtype=torch.float64, device=like.device) * 0.6180339887498949).frac_().to(
        like.dtype
    )
