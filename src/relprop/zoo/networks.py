"""The networks of the zoo, three that read digits and two that read reviews, written as anybody would write them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from relprop.errors import InvalidInput

DIGITS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
SENTIMENTS = ("negative", "positive")


class MnistMLP(nn.Module):
    """Three linear layers, 784-300-100-10, with ReLU between them (266,610 parameters).

    Input (batch, 1, 28, 28) in [-1, 1], output (batch, 10): logits, without a softmax.
    """

    labels: tuple[str, ...] = DIGITS

    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(28 * 28, 300)
        self.linear2 = nn.Linear(300, 100)
        self.linear3 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        x = F.relu(self.linear1(x))
        x = F.relu(self.linear2(x))
        return self.linear3(x)  # type: ignore[no-any-return]


class MnistCNN(nn.Module):
    """Two 5 x 5 convolutions with ReLU and max pooling, then two linear layers (129,194 parameters).

    Input (batch, 1, 28, 28) in [-1, 1], output (batch, 10): logits, without a softmax.
    """

    labels: tuple[str, ...] = DIGITS

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, kernel_size=5)
        self.conv2 = nn.Conv2d(24, 48, kernel_size=5)
        self.linear1 = nn.Linear(48 * 4 * 4, 128)
        self.linear2 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # 24 x 12 x 12
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # 48 x 4 x 4
        x = F.relu(self.linear1(x.flatten(1)))
        return self.linear2(x)  # type: ignore[no-any-return]


class MnistViT(nn.Module):
    """A vision Transformer: patches of 4 x 4 pixels, a class token, four blocks of attention (139,018 parameters).

    Input (batch, 1, 28, 28) in [-1, 1], output (batch, 10): logits, without a softmax.
    """

    labels: tuple[str, ...] = DIGITS

    def __init__(self, width: int = 64, heads: int = 4, blocks: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, kernel_size=4, stride=4)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, 1 + 7 * 7, width))
        self.blocks = nn.ModuleList(AttentionBlock(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)  # 49 patches x width
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.linear(self.norm(x[:, 0]))  # type: ignore[no-any-return]


class AttentionBlock(nn.Module):
    """Self-attention, then two linear layers with GELU, each after a norm and added to what it read.

    Input and output (batch, tokens, width).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v)  # batch x heads x tokens x width of a head
        x = x + self.out(seen.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))  # type: ignore[no-any-return]


class ReviewLSTM(nn.Module):
    """A bidirectional LSTM over word vectors, the mean of its states, one linear layer.

    Input (batch, tokens), int64 ids below `vocabulary`; 0 is padding, and the vector of 0 is zero. A row is read up
    to its last id other than 0, so that it scores alone what it scores in a batch. Output (batch, 2): logits, without
    a softmax. Raises `InvalidInput` for ids of another shape or kind, or of no tokens at all.
    """

    labels: tuple[str, ...] = SENTIMENTS

    def __init__(self, vocabulary: int, embedding: int = 128, hidden: int = 64, dropout: float = 0.5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding, padding_idx=0)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * hidden, 2)

    def forward(self, ids: Tensor) -> Tensor:
        lengths = count_tokens(ids)
        x = self.dropout(self.embedding(ids))
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)  # zero where there is padding
        mean = states.sum(dim=1) / lengths[:, None]
        return self.linear(self.dropout(mean))  # type: ignore[no-any-return]


class ReviewTransformer(nn.Module):
    """Word pieces and their places as vectors, Transformer layers as BERT's (norm after the sum, GELU), mean, linear.

    Input (batch, tokens), int64 ids below `vocabulary`, `places` at most; 0 is padding, which nothing looks at. Output
    (batch, 2): logits, without a softmax. BERT's segment vector is part of the places'. Raises `InvalidInput` for ids
    of another shape or kind, for no tokens at all and for too many.
    """

    labels: tuple[str, ...] = SENTIMENTS

    def __init__(
        self,
        vocabulary: int,
        width: int = 384,
        heads: int = 12,
        layers: int = 6,
        places: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.pieces = nn.Embedding(vocabulary, width, padding_idx=0)
        self.places = nn.Embedding(places, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", layer_norm_eps=1e-12, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.linear = nn.Linear(width, 2)

    def forward(self, ids: Tensor) -> Tensor:
        require_ids(ids, "ReviewTransformer", self.places.num_embeddings)
        padding = ids == 0
        padding[:, 0] = False  # something has to be looked at, in a row of padding too
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.dropout(self.norm(self.pieces(ids) + self.places(places)))
        x = self.encoder(x, src_key_padding_mask=padding)
        seen = (~padding).to(x.dtype)[:, :, None]
        mean = (x * seen).sum(dim=1) / seen.sum(dim=1)
        return self.linear(self.dropout(mean))  # type: ignore[no-any-return]


def count_tokens(ids: Tensor) -> Tensor:
    """Of each row of `ids` (batch, tokens), the place after its last id other than 0; 1 where all are 0.

    Raises `InvalidInput` where there is no id to count.
    """
    require_ids(ids, "ReviewLSTM")
    places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    return ((ids != 0) * places).amax(dim=1).clamp(min=1)


def require_ids(ids: Tensor, network: str, most: int | None = None) -> None:
    """Raises `InvalidInput` unless `ids` is (batch, tokens), whole numbers, with at least one token, `most` at most."""
    if ids.dim() != 2 or ids.dtype not in (torch.int64, torch.int32) or ids.numel() == 0:
        raise InvalidInput(
            f"{network} reads ids (batch, tokens), int64, at least one, but got {ids.dtype} of shape "
            f"{tuple(ids.shape)}: model(torch.tensor([tokenizer(text).ids]))"
        )
    if most is not None and ids.shape[1] > most:
        raise InvalidInput(
            f"{network} reads {most} tokens at most, those at the start and the end included, but got {ids.shape[1]}: "
            "give it a shorter text, or a long one in parts"
        )
