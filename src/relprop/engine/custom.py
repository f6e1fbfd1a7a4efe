"""Custom autograd Functions: their forward is run step by step, so that the torch functions inside it are seen.

LRP explains values, so a Function's own backward has no say: what counts is how its forward computes them.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import _get_current_function_mode

from relprop.engine.operation import tensors_in
from relprop.engine.trace import Trace

_lock = threading.Lock()
_users = 0
_original: Any = None


class _Context:
    """What autograd gives a Function's forward, which notes there what a backward would need."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.saved_tensors: tuple[Any, ...] = ()
        self.constants: tuple[Tensor, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors

    save_for_forward = save_for_backward

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        self.constants = tensors

    def mark_dirty(self, *_: Tensor) -> None:
        pass

    def set_materialize_grads(self, _: bool) -> None:
        pass


@contextlib.contextmanager
def seen() -> Iterator[None]:
    """Within this context, the traces of any thread see into custom Functions; others run as always."""
    global _users, _original
    with _lock:
        if _users == 0:
            _original = torch.autograd.Function.__dict__["apply"]
            torch.autograd.Function.apply = classmethod(_apply)  # type: ignore[assignment, method-assign]
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                torch.autograd.Function.apply = _original  # type: ignore[method-assign]


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Compiled parts of a model run as plain Python meanwhile, where their functions can be seen."""
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _apply(function: Any, *args: Any, **kwargs: Any) -> Any:
    trace = _get_current_function_mode()  # type: ignore[no-untyped-call]  # none while an operation of ours is at work
    if not isinstance(trace, Trace) or function.__module__.startswith("relprop.") or not trace.live(args, kwargs):
        return _original.__get__(None, function)(*args, **kwargs)
    context = _Context(tuple(isinstance(each, Tensor) and each.requires_grad for each in args))
    if function.setup_context is torch.autograd.Function.setup_context:
        out = function.forward(context, *args, **kwargs)
    else:
        out = function.forward(*args, **kwargs)
        function.setup_context(context, args, out)
    constants = {id(each) for each in context.constants}
    for tensor in tensors_in(out):
        if tensor.is_floating_point() and trace.node(tensor) is None and id(tensor) not in constants:
            trace.refuse(
                f"the custom autograd Function {function.__name__}",
                trace.current_module()[0],
                "what its forward returns comes from its input by no torch function (but by a kernel of its own, by "
                "numpy, by a comparison), so relevance can't follow it. Write it with torch functions, or explain a "
                "version of the model without it",
            )
    return out
