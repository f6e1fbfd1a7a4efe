"""The networks of the zoo: two that read digits, one that reads reviews, written as anybody would write them."""

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


def count_tokens(ids: Tensor) -> Tensor:
    """Of each row of `ids` (batch, tokens), the place after its last id other than 0; 1 where all are 0.

    Raises `InvalidInput` where there is no id to count.
    """
    if ids.dim() != 2 or ids.dtype not in (torch.int64, torch.int32) or ids.numel() == 0:
        raise InvalidInput(
            f"ReviewLSTM reads ids (batch, tokens), int64, at least one, but got {ids.dtype} of shape "
            f"{tuple(ids.shape)}: model(torch.tensor([tokenizer(text).ids]))"
        )
    places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    return ((ids != 0) * places).amax(dim=1).clamp(min=1)
