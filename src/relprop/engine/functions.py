"""Which function was called: one name for all spellings of an operation, and its out-of-place form."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import takewhile
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

_OPERATORS = {
    "__add__": "add",
    "__radd__": "add",
    "__iadd__": "add_",
    "__sub__": "sub",
    "__isub__": "sub_",
    "__mul__": "mul",
    "__rmul__": "mul",
    "__imul__": "mul_",
    "__truediv__": "div",
    "__itruediv__": "div_",
    "__div__": "div",
    "__idiv__": "div_",
    "__rsub__": "rsub",
    "__matmul__": "matmul",
    "__imatmul__": "matmul_",
    "__pow__": "pow",
    "__ipow__": "pow_",
    "__neg__": "neg",
    "__pos__": "positive",
    "__abs__": "abs",
    "subtract": "sub",
    "subtract_": "sub_",
    "multiply": "mul",
    "multiply_": "mul_",
    "divide": "div",
    "divide_": "div_",
    "true_divide": "div",
    "true_divide_": "div_",
    "negative": "neg",
    "absolute": "abs",
    "__mod__": "remainder",
    "__imod__": "remainder_",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctanh": "atanh",
    "fix": "trunc",
    "expit": "sigmoid",
    "gammaln": "lgamma",
    "psi": "digamma",
    "ger": "outer",
    "vdot": "dot",
    "linalg_matmul": "matmul",
    "linalg_diagonal": "diagonal",
    "linalg_cross": "cross",
    "row_stack": "vstack",
    "_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "concat": "cat",
    "concatenate": "cat",
    "clip": "clamp",
    "clip_": "clamp_",
}


@lru_cache(maxsize=4096)
def identify(function: Callable[..., Any]) -> tuple[str, bool]:
    """(name, in place): the same name for `x + y`, torch.add, Tensor.add_ and aten::add.Tensor."""
    if isinstance(function, torch._ops.OpOverload):
        namespace, name = function._schema.name.split("::")
        if namespace != "aten":
            return f"{namespace}::{name}", False
    else:
        name = getattr(function, "__name__", type(function).__name__)
        if name in ("__get__", "__set__", "__delete__"):
            attribute = getattr(getattr(function, "__self__", None), "__name__", "?")
            return f"{name.strip('_')} {attribute}", False
    if name == "__setitem__":
        return name, True
    name = name.removeprefix("special_")
    name = _OPERATORS.get(name, name)
    if name.endswith("_") and not name.endswith("__"):
        base = name[:-1]
        return _OPERATORS.get(base, base), True
    return name, False


@lru_cache(maxsize=1024)
def _orders(name: str) -> tuple[tuple[str, ...], ...]:
    """The names of a function's positional arguments, of each of its overloads."""
    schemas = torch._C._jit_get_schemas_for_operator(f"aten::{name}")
    positional = [[a.name for a in schema.arguments if not a.kwarg_only] for schema in schemas]
    return tuple(tuple("input" if each == "self" else each for each in names) for names in positional)


def as_positional(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same arguments with tensors given by keyword, as in torch.bmm(x, mat2=y), at their positions."""
    best: list[str] = []
    for names in _orders(name) if any(isinstance(value, Tensor) for value in kwargs.values()) else ():
        given = list(takewhile(kwargs.__contains__, names[len(args) :]))
        while given and not isinstance(kwargs[given[-1]], Tensor):
            given.pop()
        best = max(best, given, key=len)
    return (*args, *(kwargs[key] for key in best)), {key: v for key, v in kwargs.items() if key not in best}


def _with_item(target: Tensor, index: Any, value: Any) -> Tensor:
    """target[index] = value, on a copy."""
    copy = target.clone()
    copy[index] = value
    return copy


def _copied(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """target.copy_(source), on a copy."""
    return source.to(target.dtype).expand_as(target).clone()


_WRITTEN: dict[str, Callable[..., Any]] = {"__setitem__": _with_item, "copy_": _copied}


@lru_cache(maxsize=1024)
def out_of_place(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """The function that computes the same without overwriting its first argument."""
    if isinstance(function, torch._ops.OpOverload):
        name = function._schema.name.split("::")[1].removesuffix("_")
        packet = getattr(torch.ops.aten, name, None)
        return getattr(packet, function._overloadname, None)
    name = function.__name__
    if name in _WRITTEN:
        return _WRITTEN[name]
    if name.startswith("__i"):
        return getattr(torch.Tensor, "__" + name[3:], None)
    base = name.removesuffix("_")
    for home in (torch.Tensor, torch, torch._C._nn, torch.nn.functional):
        if hasattr(home, base):
            found: Callable[..., Any] = getattr(home, base)
            return found
    return None


def display_name(function: Callable[..., Any]) -> str:
    """The function as a user would write it."""
    if isinstance(function, torch._ops.OpOverload):
        return f"torch.ops.{function!s}"
    name = getattr(function, "__name__", type(function).__name__)
    if name == "__get__":
        return f"Tensor.{getattr(function, '__self__', function).__name__}"
    home = getattr(function, "__module__", None) or ""
    if home.startswith("torch._C"):
        return f"torch.{name}"
    if home.startswith("torch.") and isinstance(function, FunctionType):
        return f"{home}.{name}".replace("torch._tensor.", "Tensor.").replace("torch.functional.", "torch.")
    if home == "torch":
        return f"torch.{name}"
    return f"Tensor.{name}"


@lru_cache(maxsize=1024)
def body(function: FunctionType) -> Callable[..., Any]:
    """The Python function without its own interception check, so that the calls inside it are seen one by one.

    Functions such as torch.nn.functional.normalize first ask has_torch_function() and hand themselves over;
    called again they would hand themselves over again. This copy of the function answers that question with no.
    """
    inner = getattr(function, "__wrapped__", function)
    if not isinstance(inner, FunctionType):  # Tensor.__pow__ only wraps a function that is seen as it is
        return inner  # type: ignore[no-any-return]
    answers: dict[str, Any] = {
        name: _no
        for name in ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
        if name in inner.__globals__
    }
    copy = FunctionType(
        inner.__code__, {**inner.__globals__, **answers}, inner.__name__, inner.__defaults__, inner.__closure__
    )
    copy.__kwdefaults__ = inner.__kwdefaults__
    return copy


def _no(*_: Any) -> bool:
    return False
