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
