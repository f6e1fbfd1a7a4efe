"""Carriers: values move or are copied, and relevance moves with them exactly as a gradient does."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from relprop.engine.registry import kind, operation
from relprop.engine.call import Call
from relprop.errors import TrainingMode


@kind(
    "carrier",
    # fmt: off
    "view", "view_as", "reshape", "reshape_as", "_unsafe_view", "_reshape_alias", "flatten", "ravel", "unflatten",
    "squeeze", "unsqueeze", "permute", "transpose", "t", "swapaxes", "swapdims", "movedim", "moveaxis", "adjoint",
    "numpy_T", "matrix_H", "mT", "get T", "get mT", "get H", "get mH", "get real",
    "__getitem__", "select", "slice", "narrow", "split", "split_with_sizes", "tensor_split", "chunk", "unbind", "hsplit",
    "vsplit", "dsplit", "unsafe_split", "unsafe_chunk", "diagonal", "diag", "tril", "triu", "as_strided", "unfold", "im2col",
    "cat", "stack", "hstack", "vstack", "dstack", "column_stack", "expand", "expand_as", "broadcast_to",
    "broadcast_tensors", "repeat", "repeat_interleave", "tile", "atleast_1d", "atleast_2d", "atleast_3d",
    "pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
    "replication_pad2d", "replication_pad3d", "flip", "fliplr", "flipud", "roll", "rot90", "pixel_shuffle",
    "pixel_unshuffle", "channel_shuffle", "clone", "contiguous", "alias", "lift_fresh", "positive",
    "to", "type", "type_as", "float", "double", "half", "bfloat16", "_to_copy", "cpu", "cuda", "copy", "where",
    "masked_fill", "masked_select", "index_select", "take_along_dim", "take", "gather", "index", "fill", "zero", "meshgrid",
    "requires_grad", "_to_cpu", "slice_scatter", "select_scatter", "index_copy", "index_fill", "zeros_like_where",
    # fmt: on
)
def carry(call: Call, *args: Any, **kwargs: Any) -> Any:
    # A carrier keeps a role: a gate reshaped is a gate.
    live = [call.node(t) for t in call.trace.live(call.args, call.kwargs)]
    role = live[0].role if len({node.role for node in live}) == 1 else None
    out = call.native("carrier", moves=True, role=role)
    if len(live) == 1:
        call.carry_unsquashed(out)
    return out


@operation("detach", "get data", "detach_copy", kind="carrier")
def detach(call: Call, input: Tensor, *_: Any, **__: Any) -> Tensor:
    """LRP explains values, not gradients: relevance passes a detach."""
    call.trace.notes[f"relevance passed a detach() in {call.where}: values are explained, not gradients"] = None
    if call.inplace:
        return input
    call.func, call.args, call.kwargs = Tensor.view_as, (input, input), {}
    call.name = "view_as"
    return call.native("carrier", moves=True, role=call.node(input).role)  # type: ignore[no-any-return]


@operation("__setitem__", kind="carrier")
def set_item(call: Call, target: Tensor, index: Any, value: Any) -> None:
    call.native("carrier")


@operation("copy_into", "index_put", "scatter", "masked_scatter", "index_add", "scatter_add", kind="carrier")
def put(call: Call, *args: Any, **kwargs: Any) -> Any:
    return call.native("carrier")


@operation("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "native_dropout", kind="carrier")
def dropout(call: Call, input: Tensor, p: float = 0.5, train: bool | None = True, *_: Any) -> Any:
    if train and p > 0:
        raise TrainingMode(
            f"{call.title} in {call.where} drops values at random, so there is no one decision to explain. "
            "Write model.eval(), and pass training=self.training to a functional dropout"
        )
    return call.native("carrier", moves=True, role=call.node(input).role)


@operation("complex", "get imag", "fft_fft", "fft_rfft", "stft", kind="unsupported")
def not_real(call: Call, *args: Any, **kwargs: Any) -> Any:
    call.refuse("relevance is defined for real values; feed the model what comes after this step")
    return call.end(call.begin("unsupported"), call.run())


