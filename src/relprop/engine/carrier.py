"""Carriers: values move or are copied, and relevance moves with them exactly as a gradient does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.joint import remember_part
from relprop.engine.operation import map_tensors
from relprop.engine.registry import kind, operation
from relprop.errors import TrainingMode

FUNCTIONS = """
    view view_as reshape reshape_as _unsafe_view _reshape_alias flatten ravel unflatten squeeze unsqueeze
    permute transpose t swapaxes swapdims movedim moveaxis adjoint numpy_T matrix_H mT
    atleast_1d atleast_2d atleast_3d as_strided unfold im2col meshgrid combinations
    __getitem__ select slice narrow narrow_copy index index_select take take_along_dim gather masked_select
    split split_with_sizes tensor_split chunk unbind hsplit vsplit dsplit unsafe_split unsafe_chunk
    unsafe_split_with_sizes diagonal diag diag_embed diagflat tril triu
    cat stack hstack vstack dstack column_stack block_diag cartesian_prod
    expand expand_as expand_copy broadcast_to broadcast_tensors repeat repeat_interleave tile
    pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d
    flip fliplr flipud roll rot90 fft_fftshift fft_ifftshift pixel_shuffle pixel_unshuffle channel_shuffle
    native_channel_shuffle
    clone contiguous alias lift_fresh positive copy resolve_neg
    to type type_as float double half bfloat16 _to_copy cpu cuda
    _pack_padded_sequence _pad_packed_sequence pad_sequence
    where masked_fill fill zero index_fill index_copy slice_scatter select_scatter diagonal_scatter as_strided_scatter
"""
CONVERSIONS = {"to", "type", "type_as", "float", "double", "half", "bfloat16", "contiguous", "cpu", "cuda"}
PERMUTATIONS = {
    "permute", "transpose", "t", "swapaxes", "swapdims", "movedim", "moveaxis", "contiguous", "clone", "adjoint",
    "numpy_T", "mT", "get T", "get mT",
}  # fmt: skip
PROPERTIES = ("get T", "get mT", "get H", "get mH")
# Of their second argument they take the form alone.
LIKE = {"view_as", "reshape_as", "expand_as", "type_as", "to"}


@kind("carrier", *FUNCTIONS.split(), *PROPERTIES)
def carry(call: Call, *args: Any, **kwargs: Any) -> Any:
    if call.name in CONVERSIONS and call.live(call.args[0]) and _changes_nothing(call):
        return call.args[0]
    if call.name in LIKE:
        if not call.live(call.args[0]):
            return call.run().detach()
        call.args = (call.args[0], *map_tensors(call.args[1:], Tensor.detach))
        call.kwargs = map_tensors(call.kwargs, Tensor.detach)
    # A carrier keeps a role: a gate reshaped is a gate.
    live = [call.node(t) for t in call.trace.live(call.args, call.kwargs)]
    if call.name == "view" and any(isinstance(a, torch.dtype) for a in (*args, *kwargs.values())):
        call.refuse("it reads the bits of one type as another's. Write x.to(dtype) to convert values")
    out = call.native("carrier", moves=True, role=call.common_role(), remainder="constant")
    if len(live) == 1:
        call.carry_unsquashed(out)
        remember_part(call, out)
        op = call.node(out).operation if call.name in PERMUTATIONS else None
        if op is not None and (live[0].operation.affine or live[0].operation.permutation):
            op.permutation = partial(_permutation, call.name, call.func, call.args[1:], call.kwargs, len(live[0].shape))
    return out


def _changes_nothing(call: Call) -> bool:
    """Whether a tensor has the type, place and form already that a conversion would give it."""
    tensor = call.args[0]
    if call.name == "contiguous":
        form = {"memory_format": call.args[1]} if len(call.args) > 1 else call.kwargs
        return bool(tensor.is_contiguous(**form))
    if call.name in ("float", "double", "half", "bfloat16"):
        return tensor.dtype == getattr(torch, call.name)  # type: ignore[no-any-return]
    return call.run() is tensor


def _permutation(
    name: str, function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], axes: int
) -> tuple[int, ...]:
    """Which of its argument's axes each axis of the result is."""
    if name in ("contiguous", "clone"):
        return tuple(range(axes))
    probe = torch.empty(tuple(range(1, axes + 1)), device="meta")
    return tuple(size - 1 for size in function(probe, *args, **kwargs).shape)


@operation("detach", "get data", "detach_copy", kind="carrier")
def detach(call: Call, input: Tensor, *_: Any, **__: Any) -> Tensor:
    """LRP explains values, not gradients: relevance passes a detach."""
    call.trace.notes[f"relevance passed a detach() in {call.where}: values are explained, not gradients"] = None
    if call.inplace:
        return input
    call.func, call.args, call.kwargs = Tensor.view_as, (input, input), {}
    call.name = "view_as"
    return call.native("carrier", moves=True, role=call.node(input).role)  # type: ignore[no-any-return]


@operation("requires_grad", kind="carrier")
def require_gradient(call: Call, input: Tensor, *_: Any, **__: Any) -> Tensor:
    """As gradient checkpointing asks it of an embedding's output: what depends on the input has a gradient already."""
    return input


@operation("__setitem__", kind="carrier")
def set_item(call: Call, target: Tensor, index: Any, value: Any) -> Any:
    return call.native("carrier", moves=True, role=call.common_role())


@operation("put", "index_put", "scatter", "masked_scatter", kind="carrier")
def put(call: Call, input: Tensor, place: Any, *args: Any, **kwargs: Any) -> Any:
    if kwargs.get("reduce") == "multiply":
        call.refuse("it multiplies values. Write it with * and index_select")
    added = kwargs.get("reduce") or kwargs.get("accumulate") or any(a is True for a in args)
    return call.native("carrier", moves=not added, role=call.common_role())


@operation("index_add", "scatter_add", kind="carrier")
def put_on_top(call: Call, *args: Any, **kwargs: Any) -> Any:
    return call.native("carrier", role=call.common_role())


@operation("scatter_reduce", "index_reduce", kind="carrier")
def put_together(call: Call, input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, **_: Any) -> Any:
    """Sums, means and extremes of what arrives at one place."""
    if reduce == "prod":
        call.refuse("a product of several signals. Write it with * and index_select")
    return call.native("carrier")


@operation("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "native_dropout", kind="carrier")
def dropout(call: Call, input: Tensor, p: float = 0.5, train: bool | None = True, *_: Any) -> Any:
    if train and p > 0:
        raise TrainingMode(
            f"{call.title} in {call.where} drops values at random, so there is no one decision to explain. "
            "Write model.eval(), and pass training=self.training to a functional dropout"
        )
    # Otherwise torch hands on the tensor itself; but as an operation of a recorded program it would be another one.
    if call.name != "native_dropout":
        return input
    return call.native("carrier", moves=True, role=call.node(input).role)
