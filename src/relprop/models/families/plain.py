"""Families that come with torch itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from relprop.models.families.family import Family, Inputs, Task
from relprop.models.families.tasks import BATCH, TOKENS

_WIDTH = 16


class _Classifier(nn.Module):
    """nn.TransformerEncoder, and scores of the mean of what it returns."""

    def __init__(self, pre_norm: bool, activation: str) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            _WIDTH, 2, 24, batch_first=True, norm_first=pre_norm, activation=activation, dropout=0.0
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(_WIDTH, 3)

    def forward(self, src: Tensor, padding: Tensor) -> Tensor:
        scores: Tensor = self.head(self.encoder(src, src_key_padding_mask=padding).mean(1))
        return scores


class _Translator(nn.Module):
    """nn.Transformer, and scores of the last vector that it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Transformer(_WIDTH, 2, 2, 2, 24, dropout=0.0, batch_first=True)
        self.head = nn.Linear(_WIDTH, 3)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tgt.shape[1], dtype=tgt.dtype)
        out = self.transformer(src, tgt, tgt_mask=mask, tgt_is_causal=True)
        scores: Tensor = self.head(out[:, -1])
        return scores


def _sentence(config: Any) -> Inputs:
    padding = torch.zeros(BATCH, TOKENS, dtype=torch.bool)
    padding[1, -2:] = True
    return {"src": torch.randn(BATCH, TOKENS, _WIDTH), "padding": padding}


def _sentences(config: Any) -> Inputs:
    return {"src": torch.randn(BATCH, TOKENS, _WIDTH), "tgt": torch.randn(BATCH, 4, _WIDTH)}


PLAIN = (
    Family("torch-encoder", "nn.TransformerEncoder", Task("", _sentence), build=lambda: _Classifier(False, "relu")),
    Family(
        "torch-encoder-pre", "nn.TransformerEncoder, norm first, GELU", Task("", _sentence),
        build=lambda: _Classifier(True, "gelu"),
    ),
    Family("torch-transformer", "nn.Transformer", Task("", _sentences), build=_Translator),
)  # fmt: skip
