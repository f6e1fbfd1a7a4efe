"""Embeddings: token ids are explained at the embedding's output, which becomes an input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.registry import operation


@operation("embedding", kind="embedding")
def embedding(call: Call, weight: Tensor, indices: Tensor, *args: Any, **kwargs: Any) -> Any:
    if call.live(weight) or call.live(indices):
        call.refuse("an embedding whose weights or indices are computed from the input")
        return call.end(call.begin("unsupported"), call.run())
    with torch.no_grad():
        value = call.run()
    return call.trace.enter_embedding(value, indices)


SUM, MEAN = 0, 1


@operation("embedding_bag", kind="embedding")
def embedding_bag(
    call: Call,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = SUM,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """The sum or mean of the embeddings of each bag, indices (total,), offsets (bags,)."""
    if call.trace.live(call.args, call.kwargs):
        call.refuse("its weights are computed from the input. Write it with nn.Embedding, * and sum")
        return call.end(call.begin("unsupported"), call.run())
    if mode not in (SUM, MEAN):
        call.refuse("only sums and means of embeddings are explained. Write it with nn.Embedding and torch functions")
        return call.end(call.begin("unsupported"), call.run())
    with torch.no_grad():
        out = call.run()
        starts = offsets[:-1] if include_last_offset else offsets
        bag = torch.bucketize(torch.arange(len(indices), device=indices.device), starts, right=True) - 1
        share = torch.ones_like(indices, dtype=weight.dtype) if per_sample_weights is None else per_sample_weights
        if padding_idx is not None and padding_idx >= 0:
            share = share * (indices != padding_idx)
        if mode == MEAN:
            counts = torch.zeros_like(out[0][:, 0]).index_add(0, bag, (share != 0).to(share))
            share = share / counts.clamp(min=1)[bag]
        rows = weight[indices]
    value = call.trace.enter_embedding(rows, indices)

    def summed(value: Tensor) -> Tensor:
        return torch.zeros_like(out[0]).index_add(0, bag, value * share[:, None])

    bags: Tensor = call.decompose(summed, value)
    call.trace.before_overwrite(bags)
    with torch.no_grad():
        bags.detach().copy_(out[0])  # the model's own value, to the last bit
    return bags, *out[1:]
