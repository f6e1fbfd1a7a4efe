"""Softmax: AttnLRP's Taylor rule inside the network; at its end, what comes before it is explained."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.registry import operation


@operation("softmax", "log_softmax", kind="softmax")
def softmax(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Inside the network R_i = x_i (R_i - s_i sum_j R_j) (Achtibat et al. 2024, prop. 3.1), which per unit of value
    is torch's own backward; at its end the input of the softmax is what is explained."""
    out = call.native("softmax", role="attention" if call.name == "softmax" else None, remainder="softmax")
    call.squash(out, input)
    return out
