"""Token ids on their way to an embedding: which place of the input each of them came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.engine.operation import map_tensors, tensors_in

# Changes of type, which ids may go through as floats too.
CASTS = {"to", "type", "type_as", "float", "double", "half", "long", "int", "_to_copy"}


@dataclass(frozen=True, eq=False)
class Tokens:
    """A tensor of ids made from an input of ids. places: for each of them, one plus its place in the flattened input;
    0 for those that came from elsewhere. None where that isn't known."""

    ids: Tensor
    places: Tensor | None

    @staticmethod
    def of(ids: Tensor) -> Tokens:
        return Tokens(ids, torch.arange(1, ids.numel() + 1).reshape(ids.shape))

    def after(self, function: Callable[..., Any], carrier: bool, args: Any, kwargs: Any, out: Any) -> list[Tokens]:
        """What a function made of them. carrier: whether it only moves values."""
        found = [t for t in tensors_in(out) if t.dtype != torch.bool]
        places = self._moved(function, args, kwargs, out) if carrier else [self.places] * len(found)
        return [
            Tokens(ids, p if p is not None and p.shape == ids.shape else None)
            for ids, p in zip(found, places, strict=True)
        ]

    def _moved(self, function: Callable[..., Any], args: Any, kwargs: Any, out: Any) -> list[Tensor | None]:
        """The places, moved as the ids were; beside the ids, other integers come from elsewhere."""
        made = tensors_in(out)
        if self.places is None:
            return [None] * len(made)
        places, name = self.places, getattr(function, "__name__", "")
        beside = name.rstrip("_") in ("cat", "concat", "concatenate", "stack", "hstack", "vstack", "where")

        def moved(t: Tensor) -> Tensor:
            if t is self.ids:
                return places
            elsewhere = beside and t.dtype != torch.bool
            return torch.zeros_like(t, device="cpu", dtype=torch.int64) if elsewhere else t.cpu()

        try:
            with torch.no_grad():
                result = tensors_in(function(*map_tensors(args, moved), **map_tensors(kwargs, moved)))
        except (RuntimeError, TypeError, ValueError):
            return [None] * len(made)
        # What a carrier filled in (padding) is no place of the input.
        flat = torch.cat([self._filler(), self._source().flatten()])
        return [torch.where(flat[p] == ids.cpu(), p, 0) for p, ids in zip(result, made, strict=True)]

    def _source(self) -> Tensor:
        """The ids in the order of their places."""
        assert self.places is not None
        size = int(self.places.max()) if self.places.numel() else 0
        source = torch.full((size,), -1, dtype=self.ids.dtype)
        kept = self.places > 0
        source[self.places[kept] - 1] = self.ids.cpu()[kept]
        return source

    def _filler(self) -> Tensor:
        return torch.full((1,), -1, dtype=self.ids.dtype)


def at_input(values: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """Values of ids on their way, each at its place in the input: a sum where an id was used more than once."""
    if places.shape == shape and torch.equal(places.flatten(), torch.arange(1, places.numel() + 1)):
        return values
    collected = values.new_zeros(shape.numel() + 1)
    return collected.index_add(0, places.flatten().to(values.device), values.flatten())[1:].reshape(shape)
