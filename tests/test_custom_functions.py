"""Custom autograd Functions: what their forward computes is explained, whatever their backward says."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from relprop.errors import UnsupportedFunction


class Swish(torch.autograd.Function):
    """As memory-efficient spellings have it; its backward is wrong on purpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.set_materialize_grads(False)
        return x * torch.sigmoid(x) * scale

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        return 1000 * v, None


class Separate(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return F.gelu(x), (x > 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, v: Tensor, _: Any) -> Tensor:
        return v


class Outside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        with torch._C.DisableTorchFunction():  # as a kernel of one's own writes
            out.copy_(x.detach() * 2)
        return out

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        return 2 * v


class Net(nn.Module):
    def __init__(self, step: Any) -> None:
        super().__init__()
        self.first, self.last, self.step = nn.Linear(5, 7), nn.Linear(7, 3), step

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.step(self.first(x)))


def nets(a: Any, b: Any) -> tuple[Net, Net, Tensor]:
    torch.manual_seed(0)
    one, other = Net(a).double().eval(), Net(b).double().eval()
    other.load_state_dict(one.state_dict())
    return one, other, torch.randn(4, 5, dtype=torch.float64)


@pytest.mark.parametrize(
    ("step", "plain"),
    [
        (lambda z: Swish.apply(z, 1.5), lambda z: F.silu(z) * 1.5),
        (lambda z: Separate.apply(z)[0], F.gelu),
        (lambda z: z * Separate.apply(z)[1], F.relu),
    ],
    ids=["with context", "separate context", "a constant beside"],
)
def test_a_function_is_explained_by_its_forward(step: Any, plain: Any) -> None:
    one, other, x = nets(step, plain)
    assert torch.allclose(relprop.explain(one, x, 1).relevance, relprop.explain(other, x, 1).relevance, rtol=1e-10)
    assert relprop.check(one, x).ok


def test_afterwards_a_function_is_what_it_was() -> None:
    """Fails if an explanation leaves torch changed."""
    before = torch.autograd.Function.__dict__["apply"]
    one, _, x = nets(lambda z: Swish.apply(z, 1.0), None)
    relprop.explain(one, x, 1)
    assert torch.autograd.Function.__dict__["apply"] is before
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Swish.apply(leaf, 1.0).sum(), leaf)
    assert torch.equal(gradient, torch.full_like(x, 1000.0))


def test_an_error_in_forward_leaves_torch_as_it_was() -> None:
    before = torch.autograd.Function.__dict__["apply"]

    def broken(x: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        relprop.explain(broken, torch.ones(1, 2))
    assert torch.autograd.Function.__dict__["apply"] is before


def test_another_threads_functions_run_as_always_meanwhile() -> None:
    gradients = []

    def elsewhere() -> None:
        leaf = torch.ones(2, requires_grad=True)
        gradients.append(torch.autograd.grad(Swish.apply(leaf, 1.0).sum(), leaf)[0])

    def step(z: Tensor) -> Tensor:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return z

    one, other, x = nets(step, lambda z: z)
    assert torch.equal(relprop.explain(one, x, 1).relevance, relprop.explain(other, x, 1).relevance)
    assert torch.equal(gradients[0], torch.full((2,), 1000.0))


def test_a_function_whose_forward_leaves_torch_is_refused_by_name() -> None:
    one, _, x = nets(lambda z: Outside.apply(z), None)
    with pytest.raises(UnsupportedFunction, match="custom autograd Function Outside"):
        relprop.explain(one, x, 1)
