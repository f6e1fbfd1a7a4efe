"""Recurrent networks as people write them: around torch's modules, and the same by hand as Python loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

Function = Callable[[Tensor], Tensor]
State = tuple[Tensor, ...]


def _constant_gate(a: Tensor) -> Tensor:
    return torch.sigmoid(a).detach()


def _constant_tanh(a: Tensor) -> Tensor:
    return a * (torch.tanh(a) / a).detach()


def _constant_softmax(a: Tensor) -> Tensor:
    return a.softmax(1).detach()


@dataclass(frozen=True)
class Squashes:
    """The functions that are not linear. The gradient x input of a network with CONSTANT ones is its LRP-0."""

    gate: Function = torch.sigmoid
    tanh: Function = torch.tanh
    softmax: Function = lambda a: a.softmax(1)


FREE = Squashes()
CONSTANT = Squashes(_constant_gate, _constant_tanh, _constant_softmax)


# ---- torch's recurrent modules, by hand


STYLES = ("cat", "matmul", "linears", "addmm", "ahead")
"""How x W + h U + b is written: one linear on [x, h]; two products and a sum of biases; two linear layers; a product
added to another; the input's part for all steps before the loop."""


@dataclass(frozen=True)
class Weights:
    """One layer in one direction; P projects the hidden state, where there is a projection."""

    W: Tensor
    U: Tensor
    b: Tensor
    b_state: Tensor
    P: Tensor | None = None

    @classmethod
    def of(cls, module: nn.Module, end: str = "") -> Weights:
        W, U = getattr(module, f"weight_ih{end}"), getattr(module, f"weight_hh{end}")
        none = W.new_zeros(len(W))
        biases = [getattr(module, f"bias_{part}{end}", None) for part in ("ih", "hh")]
        return cls(W, U, *(none if b is None else b for b in biases), getattr(module, f"weight_hr{end}", None))

    def joint(self, x: Tensor, h: Tensor, style: str) -> Tensor:
        """x W + h U + both biases; x is the input's own part already where the style is "ahead"."""
        if style == "cat":
            return F.linear(torch.cat([x, h], 1), torch.cat([self.W, self.U], 1), self.b + self.b_state)
        if style == "matmul":
            return x @ self.W.T + h @ self.U.T + self.b + self.b_state
        if style == "addmm":
            return torch.addmm(x @ self.W.T + self.b, h, self.U.T) + self.b_state
        return self.input_part(x, style) + self.state_part(h)

    def input_part(self, x: Tensor, style: str) -> Tensor:
        return x if style == "ahead" else F.linear(x, self.W, self.b)

    def state_part(self, h: Tensor) -> Tensor:
        return F.linear(h, self.U, self.b_state)


Step = Callable[[Weights, Tensor, State, str, Squashes], State]


def lstm_step(weights: Weights, x: Tensor, state: State, style: str, squash: Squashes) -> State:
    h, c = state
    i, f, g, o = weights.joint(x, h, style).chunk(4, 1)
    c = squash.gate(f) * c + squash.gate(i) * squash.tanh(g)
    m = squash.gate(o) * squash.tanh(c)
    return (m if weights.P is None else F.linear(m, weights.P)), c


def gru_step(weights: Weights, x: Tensor, state: State, style: str, squash: Squashes) -> State:
    (h,) = state
    input_r, input_z, input_n = weights.input_part(x, style).chunk(3, 1)
    state_r, state_z, state_n = weights.state_part(h).chunk(3, 1)
    r, z = squash.gate(input_r + state_r), squash.gate(input_z + state_z)
    n = squash.tanh(input_n + r * state_n)
    return ((1 - z) * n + z * h,)


def tanh_step(weights: Weights, x: Tensor, state: State, style: str, squash: Squashes) -> State:
    return (squash.tanh(weights.joint(x, state[0], style)),)


def relu_step(weights: Weights, x: Tensor, state: State, style: str, squash: Squashes) -> State:
    return (torch.relu(weights.joint(x, state[0], style)),)


STEPS: dict[str, Step] = {"LSTM": lstm_step, "GRU": gru_step, "RNN_TANH": tanh_step, "RNN_RELU": relu_step}


class Loop(nn.Module):
    """In place of an nn.LSTM, nn.GRU or nn.RNN: its weights, its arguments, its results, but loops over the steps."""

    def __init__(self, given: nn.RNNBase, style: str = "cat", squash: Squashes = FREE) -> None:
        super().__init__()
        self.given, self.style, self.squash = given, style, squash
        self.batch_first = given.batch_first
        self.train(given.training)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        steps = list(x.unbind(1 if self.batch_first else 0))
        initial = self.initial(steps[0]) if state is None else (state,) if isinstance(state, Tensor) else state
        final = []
        for layer in range(self.given.num_layers):
            outputs = []
            for direction in range(1 + self.given.bidirectional):
                before = tuple(part[len(final)] for part in initial)
                weights = Weights.of(self.given, f"_l{layer}" + "_reverse" * direction)
                hidden, after = self.through(weights, steps[::-1] if direction else steps, before)
                outputs.append(hidden[::-1] if direction else hidden)
                final.append(after)
            steps = [torch.cat(parts, 1) for parts in zip(*outputs, strict=True)]
        states = [torch.stack(parts) for parts in zip(*final, strict=True)]
        return torch.stack(steps, 1 if self.batch_first else 0), states[0] if len(states) == 1 else tuple(states)

    def initial(self, x: Tensor) -> State:
        """Zeros for every layer and direction."""
        count = self.given.num_layers * (1 + self.given.bidirectional)
        d = self.given.hidden_size
        sizes = [self.given.proj_size or d, d] if self.given.mode == "LSTM" else [d]
        return tuple(x.new_zeros(count, len(x), size) for size in sizes)

    def through(self, weights: Weights, steps: Sequence[Tensor], state: State) -> tuple[list[Tensor], State]:
        """One layer in one direction: its hidden states and its last state."""
        if self.style == "ahead":
            steps = list(F.linear(torch.stack(list(steps)), weights.W, weights.b).unbind(0))
        hidden = []
        for x in steps:
            state = STEPS[self.given.mode](weights, x, state, self.style, self.squash)
            hidden.append(state[0])
        return hidden, state


# ---- models around a recurrent layer; `recurrent` is a module of torch or a Loop


class Reader(nn.Module):
    """A linear head on everything that a recurrent layer returns: all hidden states, and the last states of all layers.

    x: (batch, T, e), given to the layer as it wants it; states: the initial ones, (batch, layers x directions, size).
    """

    def __init__(self, recurrent: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.recurrent, self.head = recurrent, head

    def forward(self, x: Tensor, *states: Tensor) -> Tensor:
        given = tuple(state.transpose(0, 1).contiguous() for state in states)
        x = x if self.recurrent.batch_first else x.transpose(0, 1)
        out, last = self.recurrent(x, None if not given else given[0] if len(given) == 1 else given)
        out = out if self.recurrent.batch_first else out.transpose(0, 1)
        parts = [out, *(s.transpose(0, 1) for s in ((last,) if isinstance(last, Tensor) else last))]
        return self.head(torch.cat([part.flatten(1) for part in parts], 1))


class LastStates(nn.Module):
    """The usual classifier: a linear head on the last hidden states of the last layer, of a batch-first module."""

    def __init__(self, recurrent: nn.Module, head: nn.Linear, directions: int = 1) -> None:
        super().__init__()
        self.recurrent, self.head, self.directions = recurrent, head, directions

    def forward(self, x: Tensor) -> Tensor:
        _, last = self.recurrent(x)
        h = last if isinstance(last, Tensor) else last[0]
        return self.head(torch.cat(h[-self.directions :].unbind(0), 1))


class Packed(nn.Module):
    """A padded batch, packed, read, and unpacked; the head sees the last hidden states and the sum of all.

    lengths: of the sequences, in the order of the batch.
    """

    def __init__(self, recurrent: nn.RNNBase, head: nn.Linear, lengths: list[int], pack: str = "unsorted") -> None:
        super().__init__()
        self.recurrent, self.head, self.lengths, self.pack = recurrent, head, lengths, pack

    def forward(self, x: Tensor, *states: Tensor) -> Tensor:
        given = tuple(state.transpose(0, 1).contiguous() for state in states)
        packed = self.packed(x)
        out, last = self.recurrent(packed, None if not given else given[0] if len(given) == 1 else given)
        h = last if isinstance(last, Tensor) else last[0]
        out, _ = pad_packed_sequence(out, batch_first=True)
        return self.head(torch.cat([out.sum(1), *h.unbind(0)], 1))

    def packed(self, x: Tensor) -> PackedSequence:
        if self.pack == "sequences":
            return pack_sequence([x[n, :length] for n, length in enumerate(self.lengths)], enforce_sorted=False)
        return pack_padded_sequence(x, torch.tensor(self.lengths), True, enforce_sorted=self.pack == "sorted")


class Alone(Packed):
    """What `Packed` computes, for sequences of one length and without packing."""

    def forward(self, x: Tensor, *states: Tensor) -> Tensor:
        given = tuple(state.transpose(0, 1).contiguous() for state in states)
        x = x if self.recurrent.batch_first else x.transpose(0, 1)
        out, last = self.recurrent(x, None if not given else given[0] if len(given) == 1 else given)
        out = out if self.recurrent.batch_first else out.transpose(0, 1)
        h = last if isinstance(last, Tensor) else last[0]
        return self.head(torch.cat([out.sum(1), *h.unbind(0)], 1))


class CellByCell(nn.Module):
    """An nn.LSTMCell, nn.GRUCell or nn.RNNCell, called step by step; a linear head on all hidden states.

    x: (batch, T, e); states: the initial ones, (batch, d).
    """

    def __init__(self, cell: nn.RNNCellBase, head: nn.Linear) -> None:
        super().__init__()
        self.cell, self.head = cell, head

    def forward(self, x: Tensor, *states: Tensor) -> Tensor:
        state: Any = states[0] if len(states) == 1 else states or None
        hidden = []
        for x_t in x.unbind(1):
            state = self.cell(x_t, state)
            hidden.append(state if isinstance(state, Tensor) else state[0])
        return self.head(torch.cat(hidden, 1))


class Attention(nn.Module):
    """A score for each hidden state, their softmax over time, and the weighted sum of the hidden states."""

    def __init__(self, recurrent: nn.Module, width: int, squash: Squashes = FREE) -> None:
        super().__init__()
        self.recurrent, self.squash = recurrent, squash
        self.scores, self.head = nn.Linear(width, 1), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.recurrent(x)
        weights = self.squash.softmax(self.scores(hidden))
        return self.head((weights * hidden).sum(1))


class ConvLSTM(nn.Module):
    """Convolution over the steps, ReLU, pooling, then a recurrent layer."""

    def __init__(self, recurrent: nn.Module, e: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(e, recurrent_size(recurrent), 3, padding=1)
        self.recurrent, self.head = recurrent, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(torch.relu(self.conv(x.transpose(1, 2))), 2).transpose(1, 2)
        hidden, _ = self.recurrent(x)
        return self.head(hidden[:, -1])


class LSTMConv(nn.Module):
    """A recurrent layer, then a convolution over its hidden states and the mean over time."""

    def __init__(self, recurrent: nn.Module, e: int, width: int) -> None:
        super().__init__()
        self.recurrent, self.conv = recurrent, nn.Conv1d(width, 4, 2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.recurrent(x)
        return self.head(torch.relu(self.conv(hidden.transpose(1, 2))).mean(2))


class Residual(nn.Module):
    """x + recurrent(x), and a recurrent layer used twice."""

    def __init__(self, recurrent: nn.Module, e: int, width: int) -> None:
        super().__init__()
        self.recurrent, self.back, self.head = recurrent, nn.Linear(width, e), nn.Linear(e, 3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = x + self.back(self.recurrent(x)[0])
        return self.head(x[:, -1])


class Regression(nn.Module):
    """A one-dimensional signal (batch, T) to one number per sample (batch,)."""

    def __init__(self, recurrent: nn.Module, width: int) -> None:
        super().__init__()
        self.recurrent, self.head = recurrent, nn.Linear(width, 1)

    def forward(self, signal: Tensor) -> Tensor:
        hidden, _ = self.recurrent(signal[:, :, None])
        return self.head(hidden[:, -1])[:, 0]


class Translation(nn.Module):
    """An encoder whose last state starts a decoder, which reads the sequence again."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.encoder(x)
        hidden, _ = self.decoder(x, state)
        return self.head(hidden[:, -1])


class MinimalGatedUnit(nn.Module):
    """h' = (1 - f) h + f tanh(W x + U (f h) + b), f = sigmoid(W_f x + U_f h + b_f) (Zhou et al. 2016)."""

    def __init__(self, e: int, d: int, squash: Squashes = FREE) -> None:
        super().__init__()
        self.d, self.squash = d, squash
        self.forget, self.candidate, self.head = nn.Linear(e + d, d), nn.Linear(e + d, d), nn.Linear(d, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), self.d)
        for x_t in x.unbind(1):
            f = self.squash.gate(self.forget(torch.cat([x_t, h], 1)))
            n = self.squash.tanh(self.candidate(torch.cat([x_t, f * h], 1)))
            h = (1 - f) * h + f * n
        return self.head(h)


class CoupledLSTM(nn.Module):
    """An LSTM whose forget gate is 1 - i, its steps written into a preallocated tensor."""

    def __init__(self, e: int, d: int, squash: Squashes = FREE) -> None:
        super().__init__()
        self.d, self.squash = d, squash
        self.input, self.state, self.head = nn.Linear(e, 3 * d), nn.Linear(d, 3 * d, bias=False), nn.Linear(d, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, c = x.new_zeros(len(x), self.d), x.new_zeros(len(x), self.d)
        hidden = x.new_zeros(len(x), x.shape[1], self.d)
        for t in range(x.shape[1]):
            i, g, o = (self.input(x[:, t]) + self.state(h)).split(self.d, 1)
            i = self.squash.gate(i)
            c = (1 - i) * c + i * self.squash.tanh(g)
            h = self.squash.gate(o) * self.squash.tanh(c)
            hidden[:, t] = h
        return self.head(hidden.mean(1))


class Words(nn.Module):
    """Token ids (batch, T) through an embedding to a model of vectors."""

    def __init__(self, model: nn.Module, count: int, e: int) -> None:
        super().__init__()
        self.embedding, self.model = nn.Embedding(count, e), model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(self.embedding(ids))


def recurrent_size(recurrent: nn.Module) -> int:
    """How many values a step of a module of torch or of a Loop reads."""
    given = recurrent.given if isinstance(recurrent, Loop) else recurrent
    size: int = given.input_size
    return size
