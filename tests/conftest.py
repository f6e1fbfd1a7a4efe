"""What all tests share."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import torch

# The tests run in several processes, and their models are small.
torch.set_num_threads(1)

# A script's background jobs ignore Ctrl-C, and so would the programs that these tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(config: pytest.Config, val: Any, argname: str) -> str | None:
    """Names that are the same in every process: a function's own, not its address."""
    if callable(val):
        name = getattr(val, "__name__", type(val).__name__)
        return argname if name == "<lambda>" else name
    return str(val) if isinstance(val, (tuple, list)) and len(str(val)) < 60 and " at 0x" not in str(val) else None
