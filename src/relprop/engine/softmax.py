"""Softmax and statistics computed from signals: softmax by AttnLRP's Taylor rule, norms by homogeneity."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from relprop.engine.call import Call, on_gradient
from relprop.engine.registry import operation


@operation("softmax", "log_softmax", kind="softmax")
def softmax(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Inside the network R_i = x_i (R_i - s_i sum_j R_j) (Achtibat et al. 2024, prop. 3.1), which per unit of value
    is torch's own backward; at its end the input of the softmax is what is explained."""
    out = call.native("softmax", role="attention" if call.name == "softmax" else None, remainder="softmax")
    call.squash(out, input)
    return out


@operation(
    "norm",
    "linalg_vector_norm",
    "std",
    "frobenius_norm",
    "nuclear_norm",
    "linalg_norm",
    "linalg_matrix_norm",
    "dist",
    "cdist",
    "pdist",
    "pairwise_distance",
    kind="sum",
)
def norm(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Homogeneous of degree one: x_i times the derivative adds up to the norm."""
    return call.native("sum", role="statistic")


@operation("var", kind="sum")
def variance(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Homogeneous of degree two: half of it."""
    out = call.native("sum", role="statistic")
    on_gradient(out, lambda v: v * 0.5)
    return out


@operation("var_mean", "std_mean", kind="sum")
def statistic_and_mean(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    spread, mean = call.native("sum")
    call.node(spread).role = "statistic"
    if call.name == "var_mean":
        on_gradient(spread, lambda v: v * 0.5)
    return spread, mean


@operation("embedding", kind="embedding")
def embedding(call: Call, weight: Tensor, indices: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Token ids are explained at the embedding's output."""
    import torch

    if call.live(weight) or call.live(indices):
        call.refuse("an embedding whose weights or indices are computed from the input")
        return call.end(call.begin("unsupported"), call.run())
    with torch.no_grad():
        value = call.run()
    return call.trace.enter_embedding(value, indices)
