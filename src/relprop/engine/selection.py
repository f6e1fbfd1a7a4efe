"""Selections: the winner takes all, which is torch's own backward."""

from __future__ import annotations

from typing import Any

from relprop.engine.call import Call
from relprop.engine.registry import kind, operation

FUNCTIONS = """
    max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d fractional_max_pool2d fractional_max_pool3d
    max_unpool1d max_unpool2d max_unpool3d max min amax amin aminmax maximum minimum fmax fmin
    median nanmedian kthvalue mode topk sort msort cummax cummin
"""


@kind("selection", *FUNCTIONS.split())
def select(call: Call, *args: Any, **kwargs: Any) -> Any:
    """The largest of gates, or of attention weights, are what they are taken from."""
    return call.native("selection", moves=True, role=call.common_role())


@operation("quantile", "nanquantile", kind="selection")
def interpolated(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Two neighbours share by their weights and values."""
    return call.native("selection")
