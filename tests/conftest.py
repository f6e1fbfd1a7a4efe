"""What all tests share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

# The tests run in several processes, and their models are small.
torch.set_num_threads(1)


def pytest_make_parametrize_id(config: pytest.Config, val: Any, argname: str) -> str | None:
    """Names that are the same in every process: a function's own, not its address."""
    if callable(val):
        name = getattr(val, "__name__", type(val).__name__)
        return argname if name == "<lambda>" else name
    return str(val) if isinstance(val, (tuple, list)) and len(str(val)) < 60 and " at 0x" not in str(val) else None
