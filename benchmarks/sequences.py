"""Networks for sequences: recurrent ones, a Transformer encoder and a decoder of GPT-2's shape, with random weights."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def signal(batch: int, steps: int, width: int, seed: int = 1) -> Tensor:
    """Random features (batch, steps, width)."""
    return torch.randn(batch, steps, width, generator=torch.Generator().manual_seed(seed))


class Reader(nn.Module):
    """One recurrent layer, and a head on its last time step."""

    def __init__(self, layer: nn.RNNBase, units: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(units, 2)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.layer(x)[0][:, -1]))


def lstm(units: int = 128) -> nn.Module:
    torch.manual_seed(0)
    return Reader(nn.LSTM(units, units, batch_first=True), units).eval()


def gru(units: int = 128) -> nn.Module:
    torch.manual_seed(0)
    return Reader(nn.GRU(units, units, batch_first=True), units).eval()


def rnn(units: int = 128) -> nn.Module:
    torch.manual_seed(0)
    return Reader(nn.RNN(units, units, batch_first=True), units).eval()


class Classifier(nn.Module):
    """torch's own encoder, and a head on the mean over the tokens; inputs are embeddings (batch, tokens, width)."""

    def __init__(self, layers: int, width: int, heads: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.encoder(x).mean(1)))


def encoder(layers: int = 6, width: int = 384, heads: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return Classifier(layers, width, heads).eval()


class Block(nn.Module):
    """A decoder's block, its attention by one fused function; or an encoder's, its attention written out."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, -1))
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            mixed = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return cast(Tensor, x + self.mlp(self.norm2(x)))


class WrittenOut(nn.Module):
    """An encoder as "eager" implementations have it, and a head on the mean over the tokens."""

    def __init__(self, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(width, heads, fused=False) for _ in range(layers)))
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.blocks(x).mean(1)))


def encoder_written_out() -> nn.Module:
    torch.manual_seed(0)
    return WrittenOut(6, 384, 6).eval()


class Decoder(nn.Module):
    """GPT-2 (Radford et al. 2019) behind its token embedding: (batch, tokens, width) to (batch, tokens, vocabulary)."""

    def __init__(self, layers: int, width: int, heads: int, context: int, vocabulary: int) -> None:
        super().__init__()
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads, fused=True) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.positions(torch.arange(x.shape[1], device=x.device))
        return cast(Tensor, self.head(self.norm(self.blocks(x))))


def gpt2(vocabulary: int = 50257) -> nn.Module:
    """GPT-2 small: 12 layers, 12 heads, width 768."""
    torch.manual_seed(0)
    model = Decoder(12, 768, 12, 1024, vocabulary)
    nn.init.normal_(model.positions.weight, std=0.02)
    nn.init.normal_(model.head.weight, std=0.02)
    return model.eval()
