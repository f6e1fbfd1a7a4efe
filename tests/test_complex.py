"""Complex numbers inside a network: rotary positions and Fourier transforms equal their real spelling."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import relprop
from relprop import RuleMap
from relprop.errors import UnsupportedFunction
from relprop.rules import Epsilon, Zero

Function = Callable[[Tensor], Tensor]

generator = torch.Generator().manual_seed(0)
X = torch.randn(3, 6, generator=generator, dtype=torch.float64)
W = torch.randn(6, 4, generator=generator, dtype=torch.float64)
ANGLES = torch.randn(3, generator=generator, dtype=torch.float64)
DFT = torch.fft.fft(torch.eye(6, dtype=torch.complex128))


def turned_complex(x: Tensor) -> Tensor:
    pairs = torch.view_as_complex((x @ W @ W.T).reshape(3, 3, 2))
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(ANGLES), ANGLES)).flatten(1) @ W


def turned(x: Tensor) -> Tensor:
    a, b = (x @ W @ W.T).reshape(3, 3, 2).unbind(-1)
    c, s = ANGLES.cos(), ANGLES.sin()
    return torch.stack([a * c - b * s, a * s + b * c], -1).flatten(1) @ W


PAIRS: dict[str, tuple[Function, Function]] = {
    "rotary positions": (turned_complex, turned),
    "real part of a transform": (lambda x: torch.fft.fft(x).real @ W, lambda x: x @ DFT.real @ W),
    "imaginary part": (lambda x: torch.fft.fft(x).imag @ W, lambda x: x @ DFT.imag @ W),
    "there and back": (lambda x: torch.fft.irfft(torch.fft.rfft(x), n=6) @ W, lambda x: x @ W),
    "spectrum": (
        lambda x: torch.fft.fft(x).abs() @ W,
        lambda x: torch.linalg.vector_norm(torch.stack([x @ DFT.real, x @ DFT.imag]), dim=0) @ W,
    ),
    "two transforms added": (
        lambda x: (torch.fft.fft(x) + torch.fft.fft(x.tanh())).real @ W,
        lambda x: (x @ DFT.real + x.tanh() @ DFT.real) @ W,
    ),
    "convolution theorem": (
        lambda x: torch.fft.ifft(torch.fft.fft(x) * torch.fft.fft(W[:, 0])).real @ W,
        lambda x: torch.stack([(x * W[:, 0].flip(0).roll(i + 1)).sum(1) for i in range(6)], 1) @ W,
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_complex_steps_equal_their_real_spelling(name: str) -> None:
    """At eps 0, where sharing step by step and all at once agree for what is linear."""
    by_complex, by_real = PAIRS[name]
    rules = RuleMap([("affine", Zero())])
    found, expected = relprop.explain(by_complex, X, 1, rules=rules), relprop.explain(by_real, X, 1, rules=rules)
    assert torch.allclose(found.score, expected.score, rtol=1e-12)
    assert torch.allclose(found.relevance, expected.relevance, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(found.relevance, torch.zeros_like(X))


@pytest.mark.parametrize("name", PAIRS)
def test_what_arrives_in_a_complex_step_leaves_it(name: str) -> None:
    """Fails if the report takes conj(v) z for v z."""
    report = relprop.check(PAIRS[name][0], X, 1, rules=RuleMap([("affine", Zero())]))
    size = sum(abs(op.received) for op in report.operations)
    assert report.ok and all(abs(op.difference) < 1e-9 * size for op in report.operations)


def test_a_stabilised_sum_of_complex_numbers_loses_what_its_size_says() -> None:
    """z / (z + eps s(z)) with s(z) = z / |z|: R |z| / (|z| + eps)."""
    constant = torch.complex(X, X.flip(1))
    z = constant.abs() + 0.0
    model: Function = lambda x: (torch.complex(x, x.flip(1)) + 0 * constant).abs()  # noqa: E731
    eps = 0.1
    found = relprop.explain(model, X, lambda y: y.sum(1), rules=RuleMap([("sum", Epsilon(eps)), ("affine", Zero())]))
    # Two stabilised sums are on the way: the one of complex numbers, and the target's, of the sizes.
    total = z.sum(1)
    expected = (z * z / (z + eps)).sum(1) * total / (total + eps)
    assert torch.allclose(found.total, expected, rtol=1e-12)


def test_an_activation_of_complex_numbers_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedFunction, match=r"tanh.*complex[\s\S]*view_as_real"):
        relprop.explain(lambda x: torch.fft.fft(x).tanh().abs(), X, 1)
