"""Selections: the winner takes all, which is torch's own backward."""

from __future__ import annotations

from typing import Any

from relprop.engine.registry import kind
from relprop.engine.call import Call


@kind(
    "selection",
    # fmt: off
    "max_pool1d", "max_pool2d", "max_pool3d", "max_pool1d_with_indices", "max_pool2d_with_indices",
    "max_pool3d_with_indices", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "fractional_max_pool2d", "fractional_max_pool3d", "max_unpool1d", "max_unpool2d", "max_unpool3d",
    "max", "min", "amax", "amin", "aminmax", "maximum", "minimum", "fmax", "fmin", "median", "nanmedian",
    "kthvalue", "mode", "topk", "sort", "msort", "cummax", "cummin",
    # fmt: on
)
def select(call: Call, *args: Any, **kwargs: Any) -> Any:
    return call.native("selection", moves=True)
