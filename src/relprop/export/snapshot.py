"""Whether a model still is what it was when an explanation of it was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from relprop.engine.weights import checksum

# Constants of no more bytes are gathered to be compared at once: for small ones a call of torch costs most.
_SMALL = 2**18


class Snapshot:
    """What a model's modules, and the constants read from it, were.

    Noticed are modules, parameters and buffers that were replaced, a change of mode, and any change of a constant's
    values: in place, through `.data` or by what shares its memory. Not noticed is what the model's Python reads beside
    them, such as attributes (`conv.stride`), hooks and globals, nor changes of a complex constant through `.data`.
    """

    def __init__(self, model: Any, constants: Sequence[Tensor]) -> None:
        self._modules = tuple(model.modules()) if isinstance(model, nn.Module) else ()
        self._constants = tuple(constants)
        self._single: list[Tensor] = []
        small: dict[torch.device, list[Tensor]] = {}
        known = set()
        for constant in (c.detach() for c in constants if not c.is_complex()):
            laid = constant.T if constant.dim() == 2 and not constant.is_contiguous() else constant
            place = (laid.device, laid.data_ptr(), laid.dtype, laid.shape, laid.stride())
            if place in known:
                continue
            known.add(place)
            if laid.is_contiguous() and 0 < laid.numel() * laid.element_size() <= _SMALL:
                small.setdefault(laid.device, []).append(laid.view(-1).view(torch.uint8))
            else:
                self._single.append(laid)
        self._gathered = [_Gathered(views) for views in small.values()]
        self._parts = self._of_modules()  # kept, so that no other object gets the id of one of them
        self._ids = list(map(id, self._parts))
        self._values = self._of_constants()

    def holds(self) -> bool:
        """Whether all is as it was."""
        return self._ids == list(map(id, self._of_modules())) and self._values == self._of_constants()

    def _of_modules(self) -> list[Any]:
        found: list[Any] = []
        for module in self._modules:
            found.append(module.training)
            found.extend(chain(module._parameters.values(), module._buffers.values(), module._modules.values()))
        return found

    def _of_constants(self) -> list[Any]:
        values: list[Any] = [(c._version, c.data_ptr(), c.stride()) for c in self._constants]
        values += [gathered.checksum() for gathered in self._gathered]
        return values + [checksum(constant) for constant in self._single]


class _Gathered:
    """The bytes of small tensors on one device, summed at once, each word of 4 with a factor of its own.

    The factors are odd, so that no change of one word goes unnoticed; that several cancel is as likely as a collision
    of random numbers of 63 bits.
    """

    def __init__(self, views: list[Tensor]) -> None:
        missing = -sum(map(len, views)) % 4
        self._views = [*views, views[0].new_zeros(missing)]
        words = (sum(map(len, views)) + missing) // 4
        random = torch.Generator().manual_seed(0)
        factors = torch.randint(-(2**62), 2**62, (words,), generator=random) * 2 + 1
        self._factors = factors.to(views[0].device)

    def checksum(self) -> int:
        return int((torch.cat(self._views).view(torch.int32).long() * self._factors).sum())
