"""Statistics of signals: norms and spreads. They scale what they multiply; as signals they share by homogeneity."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from relprop.engine.call import Call, on_gradient
from relprop.engine.registry import operation

NORMS = """
    norm linalg_norm linalg_vector_norm linalg_matrix_norm frobenius_norm nuclear_norm std
    dist cdist pdist pairwise_distance
"""


@operation(*NORMS.split(), kind="sum")
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
