"""Token ids on their way to an embedding: which place of the input each of them came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.asking import recording
from relprop.engine.operation import map_tensors, tensors_in

# Changes of type, which ids may go through as floats too.
CASTS = {"to", "type", "type_as", "float", "double", "half", "long", "int", "_to_copy"}

# In place, these put ids at other places; all others leave them where they are.
_REARRANGES = {
    "scatter",
    "copy",
    "index_copy",
    "put",
    "index_put",
    "masked_scatter",
    "transpose",
    "t",
    "swapaxes",
    "swapdims",
}


@dataclass(frozen=True, eq=False)
class Tokens:
    """A tensor of ids made from an input of ids. places: for each of them, one plus its place in the flattened input;
    0 for those that came from elsewhere. None where that isn't known."""

    ids: Tensor
    places: Tensor | None

    @staticmethod
    def of(ids: Tensor) -> Tokens:
        return Tokens(ids, torch.arange(1, ids.numel() + 1).reshape(ids.shape))

    def after(
        self,
        function: Callable[..., Any],
        name: str,
        carrier: bool,
        inplace: bool,
        args: Any,
        kwargs: Any,
        out: Any,
        others: Sequence[Tokens] = (),
    ) -> list[Tokens]:
        """What a function of this name made of them. carrier: whether it only moves values; others: further ids of the
        same input among its arguments."""
        found = [t for t in tensors_in(out) if t.dtype != torch.bool]
        places: list[Tensor | None] = [self.places] * len(found)
        if inplace and name in _REARRANGES:
            places = [None] * len(found)
        elif carrier and not inplace:
            places = self._moved(function, name, args, kwargs, out, others)
        return [
            Tokens(ids, p if p is not None and p.shape == ids.shape else None)
            for ids, p in zip(found, places, strict=True)
        ]

    def _moved(
        self, function: Callable[..., Any], name: str, args: Any, kwargs: Any, out: Any, others: Sequence[Tokens]
    ) -> list[Tensor | None]:
        """The places, moved as the ids were; beside the ids, other integers come from elsewhere."""
        made = tensors_in(out)
        known = {id(t.ids): t.places for t in (self, *others) if t.places is not None}
        if id(self.ids) not in known:
            return [None] * len(made)
        beside = name in ("cat", "stack", "hstack", "vstack", "where")

        def result(shift: int) -> list[Tensor]:
            def moved(t: Tensor) -> Tensor:
                places = known.get(id(t)) if t is self.ids or beside else None
                if places is not None:
                    return places + shift
                elsewhere = beside and t.dtype != torch.bool
                return torch.zeros_like(t, device="cpu", dtype=torch.int64) if elsewhere else t.detach().cpu()

            return tensors_in(function(*map_tensors(args, moved), **map_tensors(kwargs, moved)))

        try:
            with torch.no_grad():
                # What doesn't shift with the places was filled in (padding), and is no place of the input.
                return [torch.where(b - a == 1, a, 0) for a, b in zip(result(0), result(1), strict=True)]
        except (RuntimeError, TypeError, ValueError):
            return [None] * len(made)


def at_input(values: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """Values of ids on their way, each at its place in the input: a sum where an id was used more than once."""
    # The shorter way, where that is known.
    in_order = not recording() and places.shape == shape
    if in_order and torch.equal(places.flatten(), torch.arange(1, places.numel() + 1)):
        return values
    collected = values.new_zeros(math.prod(shape) + 1)
    return collected.index_add(0, places.flatten().to(values.device), values.flatten())[1:].reshape(shape)
