"""Transformers as people write them: by hand in many variants, torch's modules and Hugging Face's models by hand.

Each takes the functions it is made of: FREE ones for a user's network, Modified ones for its LRP by autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from oracle.attention_gradient import FREE, Functions
from torch import Tensor, nn


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in eval mode and float64, every parameter random: biases and norms are at no special value."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.dim() > 1:
                parameter.copy_(noise / math.sqrt(parameter.shape[-1]))
            else:
                parameter.copy_(0.3 * noise + (name.rpartition(".")[2] == "weight"))
    return module


# ---- masks, (T, S) and broadcast; True where a query may look


def causal(queries: int, keys: int) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool).tril()


def additive(allowed: Tensor) -> Tensor:
    """0 where allowed, else -inf, in float64."""
    return torch.zeros(allowed.shape, dtype=torch.float64).masked_fill(~allowed, -math.inf)


MASKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda logits, allowed: logits,
    "additive": lambda logits, allowed: logits + additive(allowed),
    "additive min": lambda logits, allowed: logits + additive(allowed).clamp(min=torch.finfo(torch.float64).min),
    "masked_fill": lambda logits, allowed: logits.masked_fill(~allowed, -math.inf),
    "masked_fill in place": lambda logits, allowed: logits.masked_fill_(~allowed, -1e9),
    "where": lambda logits, allowed: torch.where(allowed, logits, logits.new_tensor(-math.inf)),
}

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "gelu tanh": lambda z: F.gelu(z, approximate="tanh"),
    "gelu by hand": lambda z: 0.5 * z * (1 + torch.erf(z / math.sqrt(2))),
    "new gelu": lambda z: 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * torch.pow(z, 3)))),
    "quick gelu": lambda z: z * torch.sigmoid(1.702 * z),
    "swish": lambda z: z * z.sigmoid(),
    "relu in place": lambda z: F.relu(z.clone(), inplace=True),
    "module relu": nn.ReLU(),
    "module gelu": nn.GELU(),
    "module silu": nn.SiLU(inplace=False),
}


# ---- positions


def rotation(steps: int, width: int) -> Tensor:
    """Angles of rotary embeddings, (T, width / 2)."""
    frequencies = 100 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.outer(torch.arange(steps, dtype=torch.float64), frequencies)


def rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


def rotary(x: Tensor) -> Tensor:
    """x: (..., T, width), halves rotated against each other (GPT-NeoX, LLaMA in transformers)."""
    angles = rotation(*x.shape[-2:])
    angles = torch.cat((angles, angles), -1)
    return x * angles.cos() + rotate_half(x) * angles.sin()


def rotary_complex(x: Tensor) -> Tensor:
    """x: (..., T, width), neighbours as complex numbers (the original LLaMA)."""
    angles = rotation(*x.shape[-2:])
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def rotary_interleaved(x: Tensor) -> Tensor:
    """x: (..., T, width), neighbours rotated against each other, strided (GPT-J)."""
    angles = rotation(*x.shape[-2:])
    even, odd = x[..., ::2], x[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


ROTARY: dict[str, Callable[[Tensor], Tensor]] = {
    "rotary": rotary,
    "rotary complex": rotary_complex,
    "rotary interleaved": rotary_interleaved,
}


def sinusoids(steps: int, width: int) -> Tensor:
    angles = rotation(steps, width)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)


def alibi(heads: int, queries: int, keys: int) -> Tensor:
    """(heads, T, S)."""
    slopes = 2 ** (-8 * torch.arange(1, heads + 1, dtype=torch.float64) / heads)
    return slopes[:, None, None] * -(torch.arange(queries)[:, None] - torch.arange(keys)).abs()


# ---- normalisers by hand


class LayerNormByHand(nn.Module):
    """With mean and var, or with mean, pow and sqrt."""

    def __init__(self, d: int, f: Functions, style: str) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d))
        self.f, self.style = f, style

    def forward(self, x: Tensor) -> Tensor:
        if self.style == "layer norm by var":
            x = (x - x.mean(-1, keepdim=True)) / self.f.statistic(
                torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)
            )
        elif self.style == "layer norm by std":
            x = (x - x.mean(-1, keepdim=True)) / (self.f.statistic(x.std(-1, keepdim=True)) + 1e-5)
        else:
            centred = x - x.mean(-1, keepdim=True)
            x = centred * self.f.statistic(torch.rsqrt(centred.pow(2).mean(-1, keepdim=True) + 1e-5))
        return self.weight * x + self.bias


class RMSNormByHand(nn.Module):
    """The form of LLaMA, that of Gemma with 1 + weight, and a division by the norm."""

    def __init__(self, d: int, f: Functions, style: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))
        self.f, self.style = f, style

    def forward(self, x: Tensor) -> Tensor:
        if self.style == "rms norm of Gemma":
            return x * self.f.statistic(torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)) * (1.0 + self.weight)
        if self.style == "rms norm by norm":
            return x / self.f.statistic(x.norm(dim=-1, keepdim=True) * x.shape[-1] ** -0.5) * self.weight
        if self.style == "functional rms norm" and self.f is FREE:
            return F.rms_norm(x, (x.shape[-1],), self.weight, 1e-6)
        return self.weight * (x * self.f.statistic(torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)))


NORMS = (
    "layer norm",
    "layer norm by var",
    "layer norm by std",
    "layer norm by pow",
    "rms norm",
    "rms norm by hand",
    "rms norm of Gemma",
    "rms norm by norm",
    "functional rms norm",
)


def norm(style: str, d: int, f: Functions) -> nn.Module:
    if style == "layer norm":
        return nn.LayerNorm(d)
    if style == "rms norm":
        return nn.RMSNorm(d, eps=1e-6)
    return LayerNormByHand(d, f, style) if style.startswith("layer") else RMSNormByHand(d, f, style)


# ---- attention


@dataclass(frozen=True)
class Style:
    """What a Transformer is made of; keys of the tables above."""

    norm: str = "layer norm"
    norm_first: bool = True
    activation: str = "relu"
    feed_forward: str = "mlp"
    mask: str = "none"
    position: str = "none"
    kv_heads: int = 2
    heads: int = 2
    product: str = "matmul"
    bias: bool = True


PRODUCTS = ("matmul", "bmm", "einsum", "scaled first", "divided", "sdpa")
D, HIDDEN = 8, 12


def split(x: Tensor, heads: int) -> Tensor:
    """(B, T, heads x width) as (B, heads, T, width)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, f: Functions, logits_of: Callable[[Tensor], Tensor]) -> Tensor:
    """softmax(logits_of(q k^T / sqrt(width))) v for (B, heads, T, width)."""
    logits = logits_of(f.matmul(q, k.transpose(-2, -1)) * q.shape[-1] ** -0.5)
    return f.attend(f.softmax(logits), v)


class Attention(nn.Module):
    """Multi-head attention of x to `source`, in any of the styles."""

    def __init__(self, style: Style, f: Functions, steps: int = 5) -> None:
        super().__init__()
        width = D // style.heads
        self.q, self.o = nn.Linear(D, D, style.bias), nn.Linear(D, D, style.bias)
        self.k, self.v = (nn.Linear(D, width * style.kv_heads, style.bias) for _ in range(2))
        self.relative = nn.Parameter(torch.zeros(style.heads, 2 * steps - 1))
        self.style, self.f = style, f

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        f, style = self.f, self.style
        source = x if source is None else source
        q = split(f(self.q, x), style.heads)
        k, v = (split(f(layer, source), style.kv_heads) for layer in (self.k, self.v))
        if style.position in ROTARY:
            q, k = ROTARY[style.position](q), ROTARY[style.position](k)
        if style.kv_heads != style.heads:
            k, v = (t.repeat_interleave(style.heads // style.kv_heads, dim=1) for t in (k, v))
        out = self.weighed(q, k, v).transpose(1, 2).flatten(2)
        return f(self.o, out)

    def weighed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, heads, T, width)."""
        product, scale = self.style.product, q.shape[-1] ** -0.5
        if self.f is not FREE or product == "matmul":
            return attend(q, k, v, self.f, self.logits)
        if product == "sdpa":
            allowed = causal(q.shape[-2], k.shape[-2]) if self.style.mask != "none" else None
            return F.scaled_dot_product_attention(q, k, v, allowed)
        if product == "bmm":
            heads = q.shape[:2]
            q, k, v = (t.flatten(0, 1) for t in (q, k, v))
            logits = torch.bmm(q, k.transpose(1, 2)) * scale
            weights = F.softmax(self.logits(logits.unflatten(0, heads)), dim=-1).flatten(0, 1)
            return torch.bmm(weights, v).unflatten(0, heads)
        if product == "einsum":
            logits = torch.einsum("bhtd,bhsd->bhts", q, k) * scale
            return torch.einsum("bhts,bhsd->bhtd", torch.softmax(self.logits(logits), -1), v)
        if product == "scaled first":
            return self.logits(torch.matmul(q * scale, k.mT)).softmax(-1) @ v
        logits = torch.matmul(q, k.transpose(-1, -2)).div_(math.sqrt(q.shape[-1]))
        return torch.matmul(nn.Softmax(dim=-1)(self.logits(logits)), v)

    def logits(self, logits: Tensor) -> Tensor:
        heads, queries, keys = logits.shape[1:]
        if self.style.position == "alibi":
            logits = logits + alibi(heads, queries, keys)
        if self.style.position == "relative":
            distance = torch.arange(queries)[:, None] - torch.arange(keys) + self.relative.shape[1] // 2
            logits = logits + self.relative[:, distance]
        return MASKS[self.style.mask](logits, causal(queries, keys))


# ---- feed-forward parts


class MLP(nn.Module):
    def __init__(self, style: Style, f: Functions) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(D, HIDDEN, style.bias), nn.Linear(HIDDEN, D, style.bias)
        self.activation, self.f = ACTIVATIONS[style.activation], f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.down, self.f.activation(self.activation, self.f(self.up, x)))


class GatedMLP(nn.Module):
    """SwiGLU and GeGLU: two signals, of which one went through an activation; GLU: a sigmoid gate and a signal."""

    def __init__(self, style: Style, f: Functions) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(D, HIDDEN, style.bias), nn.Linear(D, HIDDEN, style.bias)
        self.down = nn.Linear(HIDDEN, D, style.bias)
        self.kind, self.f = style.feed_forward, f

    def forward(self, x: Tensor) -> Tensor:
        f, (gate, up) = self.f, (self.f(layer, x) for layer in (self.gate, self.up))
        if self.kind == "glu":
            return f(self.down, f.gate(gate.sigmoid(), up))
        function = {"swiglu": F.silu, "geglu": F.gelu}[self.kind]
        return f(self.down, f.gated(f.activation(function, gate), up))


class Mixture(nn.Module):
    """Experts of which a router takes the best two for each token: softmax, topk, one-hot masks, index_add_.

    "renormalised" divides the two weights by their sum, as Mixtral does; "chosen first" takes the softmax of the two.
    """

    def __init__(self, style: Style, f: Functions, experts: int = 4) -> None:
        super().__init__()
        self.router = nn.Linear(D, experts, bias=False)
        self.experts = nn.ModuleList(GatedMLP(Style(feed_forward="swiglu"), f) for _ in range(experts))
        self.kind, self.f = style.feed_forward, f

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        logits = self.f(self.router, tokens)
        if self.kind == "mixture, chosen first":
            best, chosen = torch.topk(logits, 2, dim=-1)
            weights = self.f.softmax(best)
        else:
            weights, chosen = torch.topk(self.f.softmax(logits), 2, dim=-1)
        if self.kind == "mixture, renormalised":
            weights = weights / self.f.statistic(weights.sum(-1, keepdim=True))
        out = torch.zeros_like(tokens)
        masks = F.one_hot(chosen, len(self.experts)).permute(2, 1, 0)
        for expert, mask in zip(self.experts, masks, strict=True):
            rank, token = torch.where(mask)
            out.index_add_(0, token, self.f.weigh(weights[token, rank, None], expert(tokens[token])))
        return out.view(x.shape)


def feed_forward(style: Style, f: Functions) -> nn.Module:
    if style.feed_forward == "mlp":
        return MLP(style, f)
    return Mixture(style, f) if style.feed_forward.startswith("mixture") else GatedMLP(style, f)


# ---- whole networks


class Encoder(nn.Module):
    """Two blocks, a last norm, the mean over tokens, a linear head of three classes. x: (B, T, D) or ids (B, T)."""

    def __init__(self, style: Style, f: Functions = FREE, *, steps: int = 5, words: int = 0, blocks: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, D) if words else None
        self.positions = nn.Parameter(torch.zeros(steps, D)) if style.position == "learned" else None
        self.blocks = nn.ModuleList(Block(style, f, steps) for _ in range(blocks))
        self.norm, self.head = norm(style.norm, D, f), nn.Linear(D, 3, style.bias)
        self.style, self.f = style, f

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.embedding is None else self.embedding(x)
        return self.embedded(x)

    def embedded(self, x: Tensor) -> Tensor:
        if self.positions is not None:
            x = x + self.positions[: x.shape[1]]
        if self.style.position == "sinusoidal":
            x = x * math.sqrt(D) + sinusoids(*x.shape[1:])
        for block in self.blocks:
            x = block(x)
        return self.f(self.head, self.f(self.norm, x).mean(1))


class Block(nn.Module):
    def __init__(self, style: Style, f: Functions, steps: int) -> None:
        super().__init__()
        self.attention, self.feed_forward = Attention(style, f, steps), feed_forward(style, f)
        self.norm1, self.norm2 = norm(style.norm, D, f), norm(style.norm, D, f)
        self.norm_first, self.f = style.norm_first, f

    def forward(self, x: Tensor) -> Tensor:
        f = self.f
        if self.norm_first:
            x = x + self.attention(f(self.norm1, x))
            return x + self.feed_forward(f(self.norm2, x))
        x = f(self.norm1, x + self.attention(x))
        return f(self.norm2, x + self.feed_forward(x))


class Decoder(nn.Module):
    """Causal self-attention, attention to what an encoder made of the same x, a feed-forward part; the last token."""

    def __init__(self, style: Style, f: Functions = FREE, steps: int = 5) -> None:
        super().__init__()
        self.encoder = Block(style, f, steps)
        self.self_attention = Attention(Style(mask="masked_fill"), f, steps)
        self.cross_attention = Attention(style, f, steps)
        self.feed_forward = feed_forward(style, f)
        self.norms = nn.ModuleList(norm(style.norm, D, f) for _ in range(3))
        self.head, self.f = nn.Linear(D, 3), f

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, D); its last three tokens are the decoder's own."""
        f, memory, y = self.f, self.encoder(x), x[:, -3:]
        y = y + self.self_attention(f(self.norms[0], y))
        y = y + self.cross_attention(f(self.norms[1], y), memory)
        y = y + self.feed_forward(f(self.norms[2], y))
        return f(self.head, y[:, -1])


def with_functions(build: Callable[..., nn.Module], f: Functions, *args: Any, **options: Any) -> nn.Module:
    """The same random network, of other functions."""
    return randomised(build(*args, f, **options))
