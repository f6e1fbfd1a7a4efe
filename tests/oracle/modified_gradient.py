"""LRP-0 of a whole network as input x modified gradient: torch's functions with others in the place of some.

Nothing of relprop is used. A tensor depends on the input if it requires a gradient, since the parameters are frozen.
With const(.) for what counts as constant in the backward pass:

    activation      z const(f(z) / z)
    a b, two signals   (const(a) b + a const(b)) / 2, of elements and of matrices
    gates, norms, divisors    const(f(z))
    normaliser      (x - mean(x)) const(1 / std(x)) w + b
    softmax         as it is (AttnLRP), or const(softmax(z)) (CP-LRP)

Achtibat et al. 2024, "AttnLRP", sec. 3; Ali et al. 2022, "XAI for Transformers".
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ACTIVATIONS = {
    "gelu", "silu", "silu_", "tanh", "elu", "hardswish", "hardswish_", "softplus", "mish", "clamp", "clamp_min",
    "clamp_max", "square", "hardtanh", "sqrt", "exp", "log",
}  # fmt: skip
CONSTANTS = {
    "sigmoid", "erf", "rsqrt", "reciprocal", "norm", "linalg_vector_norm", "linalg_norm", "var", "std", "hardsigmoid",
    "hardsigmoid_",
}  # fmt: skip
PRODUCTS = {"mul", "__mul__", "__rmul__", "multiply", "matmul", "__matmul__", "bmm", "mm", "einsum"}
QUOTIENTS = {"div", "__truediv__", "true_divide"}
STABILISER = 1e-6
# Modules that are one activation, written out in several functions.
WRITTEN_OUT = {"BloomGelu", "MegatronGelu"}


def relevance(
    model: nn.Module,
    inputs: dict[str, Any],
    target: Callable[[Any], Tensor] | None = None,
    *,
    softmax: str = "taylor",
) -> dict[str, Tensor]:
    """Input x modified gradient of the score, by input; token ids: of their embeddings, summed over the dimension.

    target: from the output to (batch,) scores; None: the highest of output.logits, or of the output itself.
    softmax: "taylor" or "constant".
    """
    frozen = copy.deepcopy(model).requires_grad_(False)
    leaves = {
        name: value.clone().requires_grad_()
        for name, value in inputs.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    ids = {name: value for name, value in inputs.items() if name.endswith("input_ids")}
    mode = ModifiedGradient(ids, softmax)
    with _python_functions_seen_through(), _activation_modules(frozen), _values_kept(), mode:
        output = frozen(**{**inputs, **leaves})
        score = _highest(output) if target is None else target(output)
    found = [*leaves.items(), *((name, embedded) for name, embedded in mode.embedded)]
    gradients = torch.autograd.grad(score.sum(), [leaf for _, leaf in found], allow_unused=True)
    summed: dict[str, Tensor] = {}
    for (name, leaf), gradient in zip(found, gradients, strict=True):
        if gradient is None:
            continue
        part = (leaf * gradient).detach()
        if name in ids:
            part = mode.as_given(name, part.sum(-1))
        summed[name] = summed[name] + part if name in summed else part
    return summed


def _highest(output: Any) -> Tensor:
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits.max(1).values


class ModifiedGradient(TorchFunctionMode):
    """Runs a network with functions of the same values and other gradients."""

    def __init__(self, ids: dict[str, Tensor], softmax: str) -> None:
        super().__init__()
        self.ids = ids
        self.softmax = softmax
        self.embedded: list[tuple[str, Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "detach":
            return args[0]
        if name == "embedding":
            return self._embedding(func, args, kwargs)
        if not any(_live(a) for a in (*args, *kwargs.values())):
            return func(*args, **kwargs)
        if name in ("softmax", "_safe_softmax"):
            out = func(*args, **kwargs)
            return out.detach() if self.softmax == "constant" else out
        if name in ACTIVATIONS:
            return through(lambda z: func(z, *args[1:], **kwargs), args[0])
        if name in CONSTANTS:
            return func(*args, **kwargs).detach()
        if name in ("pow", "__pow__"):
            return func(*args, **kwargs).detach() if args[1] < 0 else through(lambda z: func(z, args[1]), args[0])
        if name in PRODUCTS:
            return _halves(func, args, kwargs)
        if name in ("__imul__", "mul_") and _live(args[0]) and _live(args[1]):
            return args[0].copy_(_halves(torch.mul, (args[0].clone(), args[1]), {}))
        if name in ("__itruediv__", "div_"):
            return args[0].copy_(args[0].clone() / _constant(args[1]))
        if name in QUOTIENTS:
            return func(args[0], _constant(args[1]), **kwargs)
        if name == "baddbmm":
            return _baddbmm(*args, **kwargs)
        if name in NORMALISERS:
            return NORMALISERS[name](*args, **kwargs)
        if name == "scaled_dot_product_attention":
            return self._attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _embedding(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An embedding, whose output is a leaf if what it looks up are the given ids."""
        out = func(*args, **kwargs)
        indices = args[1]
        for name, ids in self.ids.items():
            if indices.dim() == 2 and any(_starts_with(each, ids) for each in (indices, indices.t())):
                leaf = out.detach().requires_grad_()
                self.embedded.append((name, leaf))
                return leaf * 1
        return out

    def as_given(self, name: str, found: Tensor) -> Tensor:
        """Relevance in the form of the ids, of which the network may have made columns, or more by padding."""
        batch, tokens = self.ids[name].shape
        return (found if found.shape[0] == batch else found.t())[:, :tokens]

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:
            repeats = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        scores = _halves(torch.matmul, (query, key.transpose(-1, -2)), {}) * factor
        if is_causal:
            allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
            scores = scores.masked_fill(~allowed, -torch.inf)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        unseeing = (scores == -torch.inf).all(-1, keepdim=True)  # such a query gets zero
        weights = scores.masked_fill(unseeing, 0.0).softmax(-1).masked_fill(unseeing, 0.0)
        if self.softmax == "constant":
            weights = weights.detach()
        return _halves(torch.matmul, (weights, value), {})


def through(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """z const(f(z) / z), which at z = 0 is z f'(0); where f(0) is not 0, z const(f(z) / (z + eps s(z)))."""
    at = z.detach()
    with torch.enable_grad():
        origin = torch.zeros_like(at).requires_grad_()
        at_zero = f(origin.clone())
        (slope,) = torch.autograd.grad(at_zero.sum(), origin)
    value = f(at.clone())
    stabilised = torch.where(at < 0, at - STABILISER, at + STABILISER)
    share = torch.where(at_zero.detach() == 0, torch.where(at == 0, slope, value / at), value / stabilised)
    finite = z.masked_fill(at.isinf(), 0.0)
    return finite * share + (value - finite.detach() * share)


def _live(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_live(each) for each in value)
    return isinstance(value, Tensor) and value.requires_grad


def _constant(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _halves(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A product; of two signals each takes half."""
    if len(args) == 2 and isinstance(args[1], (list, tuple)):  # einsum(equation, [a, b])
        equation, operands = args
        return _halves(lambda *factors: func(equation, factors), tuple(operands), kwargs)
    live = [place for place, value in enumerate(args) if _live(value)]
    if len(live) < 2:
        return func(*args, **kwargs)
    assert len(live) == 2, "a product of more than two signals"
    first, second = (
        func(*(_constant(value) if place == other else value for place, value in enumerate(args)), **kwargs)
        for other in live
    )
    return 0.5 * (first + second)


def _baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * input + alpha * _halves(torch.bmm, (batch1, batch2), {})


def _layer_norm(
    x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    axes = tuple(range(-len(tuple(shape)), 0))
    centred = x - x.mean(axes, keepdim=True)
    y = centred / (x.var(axes, unbiased=False, keepdim=True) + eps).sqrt().detach()
    return y * (1 if weight is None else weight) + (0 if bias is None else bias)


def _rms_norm(x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    axes = tuple(range(-len(tuple(shape)), 0))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    y = x / (x.square().mean(axes, keepdim=True) + eps).sqrt().detach()
    return y * (1 if weight is None else weight)


def _group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    rows = x.reshape(x.shape[0], groups, -1)
    y = (rows - rows.mean(-1, keepdim=True)) / (rows.var(-1, unbiased=False, keepdim=True) + eps).sqrt().detach()
    y = y.reshape(x.shape)
    form = (-1, *(1,) * (x.dim() - 2))
    return y * (1 if weight is None else weight.reshape(form)) + (0 if bias is None else bias.reshape(form))


NORMALISERS: dict[str, Callable[..., Tensor]] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
}


def _starts_with(indices: Tensor, ids: Tensor) -> bool:
    batch, tokens = ids.shape
    return indices.shape[0] == batch and indices.shape[1] >= tokens and torch.equal(indices[:, :tokens], ids)


@contextlib.contextmanager
def _python_functions_seen_through() -> Iterator[None]:
    """torch's Python functions run their bodies, so that the functions that they call come to the mode."""
    with contextlib.ExitStack() as stack:
        for home in (torch.nn.functional, torch.functional, torch._tensor):
            for name in ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"):
                if hasattr(home, name):
                    stack.enter_context(mock.patch.object(home, name, lambda *_: False))
        yield


def _values_kept() -> contextlib.AbstractContextManager[Any]:
    """Autograd keeps copies, so that a network may overwrite what it computed."""
    return torch.autograd.graph.saved_tensors_hooks(lambda saved: saved.clone(), lambda kept: kept)


@contextlib.contextmanager
def _activation_modules(model: nn.Module) -> Iterator[None]:
    """Modules that write an activation out in several functions count as one activation."""
    kinds = {type(module) for module in model.modules() if type(module).__name__ in WRITTEN_OUT}
    hub = sys.modules.get("transformers.activations")
    kinds.update(kind for kind in vars(hub).values() if _is_activation(kind, hub)) if hub else None
    with contextlib.ExitStack() as stack:
        for kind in kinds:
            stack.enter_context(mock.patch.object(kind, "forward", _as_one(kind.forward)))
        yield


def _is_activation(kind: Any, hub: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__ == hub.__name__


def _as_one(forward: Callable[[nn.Module, Tensor], Tensor]) -> Callable[[nn.Module, Tensor], Tensor]:
    def replaced(module: nn.Module, z: Tensor) -> Tensor:
        if not _live(z):
            return forward(module, z)
        with torch._C.DisableTorchFunction():
            return through(lambda z: forward(module, z), z)

    return replaced


class InDouble(TorchFunctionMode):
    """float32 written into a network means float64, so that what it computes can be compared to the last digits."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") == "float":
            return args[0] if args[0].dtype == torch.float64 else args[0].double()
        return func(*map(_double, args), **{name: _double(value) for name, value in (kwargs or {}).items()})


def _double(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


@contextlib.contextmanager
def in_double() -> Iterator[None]:
    """Everything in float64, also what a network does in float32 whatever its parameters are."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with InDouble():
            yield
    finally:
        torch.set_default_dtype(before)
