"""While an explanation is recorded: what is computed from constants alone is computed at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import SymBool, SymFloat, SymInt, Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import (
    get_proxy_mode,
    get_proxy_slot,
    track_tensor_tree,
)
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from relprop.asking import unrecorded
from relprop.errors import UnsupportedModel

aten = torch.ops.aten

# They make memory to be written to, whatever the values that they are given.
_MEMORY = {"empty_like", "zeros_like", "ones_like", "full_like", "new_empty", "new_zeros", "new_ones", "new_full",
           "new_empty_strided"}  # fmt: skip


class Constants(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps computations out of the recording that don't depend on the inputs: weights modified for a rule, questions
    about parameters. Their results are constants of the recorded graph.

    A constant that is written to afterwards is copied in the graph, which would else change with every run.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # What was there before and has been read, by where it lies in memory.
        self.read: dict[tuple[Any, ...], Tensor] = {}
        # Memory of constants made here, and of those that several tensors share: a copy of one would miss the others.
        self._made: set[int] = set()
        self._shared: set[int] = set()
        self._alive: list[Tensor] = []  # so that no other memory gets the address of theirs

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if get_proxy_mode() is None:  # nothing is recorded just now
            return func(*args, **kwargs)
        values = pytree.arg_tree_leaves(*args, **kwargs)
        tensors = [value for value in values if isinstance(value, Tensor)]
        for tensor in tensors:
            if _is_constant(tensor) and tensor.untyped_storage()._cdata not in self._made:
                place = (tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.dtype)
                self.read.setdefault(place, tensor)
        sized = any(isinstance(value, (SymInt, SymFloat, SymBool)) for value in values)
        name = func._schema.name.split("::")[-1]
        if not tensors or sized or name in _MEMORY or torch.Tag.nondeterministic_seeded in func.tags:
            return func(*args, **kwargs)
        if all(_is_constant(tensor) for tensor in tensors):
            return self._computed(func, tensors, args, kwargs)
        for tensor in _written(func, args, kwargs):
            if _is_constant(tensor):
                self._copy(tensor)
        return func(*args, **kwargs)

    def _computed(self, func: Any, tensors: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
        with unrecorded():
            out = func(*args, **kwargs)
        memory = {t.untyped_storage()._cdata for t in tensors}
        for made in pytree.tree_leaves(out):
            if isinstance(made, Tensor) and not func._schema.is_mutable:
                place = made.untyped_storage()._cdata
                (self._shared if place in memory else self._made).add(place)
                self._alive.append(made)
        return out

    def _copy(self, constant: Tensor) -> None:
        """Stand for a constant, from here on, by a copy of it that the graph makes anew in each run."""
        if constant.untyped_storage()._cdata in self._shared:
            raise UnsupportedModel(
                f"a constant of shape {tuple(constant.shape)} is written to in place, by values of the input, and "
                "others share its memory. Write x = x + ... instead of x += ..., or clone() it first"
            )
        mode = get_proxy_mode()
        assert mode is not None
        with unrecorded():
            now = constant.clone()  # on constants alone, what comes next is computed for real
        copy = mode.tracer.create_proxy("call_function", aten.clone.default, (now,), {})
        track_tensor_tree(constant, copy, constant=None, tracer=mode.tracer)


def _is_constant(tensor: Tensor) -> bool:
    """Whether a tensor is no part of the recording."""
    mode = get_proxy_mode()
    assert mode is not None
    return not isinstance(tensor, FakeTensor) and get_proxy_slot(tensor, mode.tracer, None) is None


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The arguments that a function writes to."""
    found = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            found += [t for t in pytree.tree_leaves(value) if isinstance(t, Tensor)]
    return found
