"""What is asked of the data on the way, to save work; a program that is recorded must be right for any data."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

from relprop.errors import UnsupportedModel

_state = threading.local()


def recording() -> bool:
    """Whether this thread records an explanation as a program."""
    return getattr(_state, "recording", False)


def known(condition: Tensor) -> bool:
    """Whether values meet a condition that allows a shorter way, or forbids to go on. While a program is recorded,
    which will be given other values, nothing is known of them: False."""
    return not recording() and bool(condition)


def finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite, as far as that is known. Their sum tells it, at a fraction of the cost,
    unless it overflows."""
    return recording() or bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())


def decided(condition: Tensor, what: str) -> bool:
    """Whether values meet a condition that decides how relevance is shared. UnsupportedModel while a program is
    recorded, which could not ask it again."""
    if recording():
        raise UnsupportedModel(
            f"{what}, and that depends on the values of the input: no program holds for all of them. Explain without a "
            "program, or write it so that the sign is known, as after a sigmoid or a ReLU"
        )
    return bool(condition)


@contextlib.contextmanager
def as_program() -> Iterator[None]:
    """Within this context, this thread records an explanation as a program."""
    _state.recording = True
    try:
        yield
    finally:
        _state.recording = False


@contextlib.contextmanager
def unrecorded() -> Iterator[None]:
    """What is computed from constants alone is computed now, also while a program is recorded."""
    if not recording():
        yield
        return
    from torch._subclasses.fake_tensor import unset_fake_temporarily
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

    with disable_proxy_modes_tracing(), unset_fake_temporarily():
        yield
