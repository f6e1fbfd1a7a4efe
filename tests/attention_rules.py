"""What the tests of attention share: the two presets at eps 0, and double precision throughout."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from relprop import RuleMap
from relprop.rules import Half, SignalTakesAll, Zero

LRP_0 = {
    "attn-lrp": RuleMap([("affine", Zero()), ("attention", Half())]),
    "cp-lrp": RuleMap([("affine", Zero()), ("attention", SignalTakesAll()), ("gated", SignalTakesAll())]),
}
EITHER = pytest.mark.parametrize("preset", LRP_0)


@pytest.fixture(autouse=True)
def in_double_precision() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
