"""Relevance through recurrent layers as explicit message matrices, one sequence and one step at a time, in NumPy.

Rows of a message matrix are upper units j, columns lower units i: messages[j, i] = R_{i<-j}; what the lower units get
is `messages.sum(0)`. Everything is float64. Weights are named and laid out as in torch: LSTM gates i, f, g, o; GRU
gates r, z, n. The formulas, with s(a) = +1 for a >= 0, else -1:

    LSTM  c' = f c + i g;  h' = P (o tanh(c')), P the projection, if there is one
    GRU   n = tanh(W x + b + r (U h + b'));  h' = (1 - z) n + z h
    RNN   h' = tanh or relu(W x + b + U h + b')

An affine pre-activation and a sum c' or h' is one linear operation a_j = sum_i z_ij + b_j on all that it reads, so that
R_{i<-j} = z_ij / (a_j + eps s(a_j)) R_j, or with bias="distribute" (z_ij + (b_j + eps s(a_j)) / N) / (...) R_j over its
N lower units. Activations pass relevance on unchanged (1 - sigmoid(a) is sigmoid(-a)). A product of a gate and a signal
shares as its variant says. GRU's r is a gate inside a sum: its product with U h + b' is shared in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = tuple[Array, ...]
"""The hidden state h of one layer and direction, and for an LSTM its cell state c."""


@dataclass(frozen=True)
class Rule:
    """Epsilon for everything linear, and a variant for gate * signal."""

    eps: float = 1e-6
    bias: str = "absorb"
    gate: str = "signal-take-all"
    gate_eps: float = 1e-6


def sign(a: Array) -> Array:
    """s(a): +1 for a >= 0, else -1."""
    return np.where(a >= 0, 1.0, -1.0)


def messages(z: Array, bias: Array, total: Array, R: Array, rule: Rule, lower: int | None = None) -> Array:
    """R_{i<-j}, shaped like z (m, n), for upper units of value total (m,) and relevance R (m,).

    lower: how many of the columns are lower units among which bias and stabiliser are distributed; all by default.
    """
    stabiliser = rule.eps * sign(total)
    if rule.bias == "distribute":
        count = z.shape[1] if lower is None else lower
        spread = np.zeros_like(z)
        spread[:, :count] = ((bias + stabiliser) / count)[:, None]
        z = z + spread
    elif rule.bias != "absorb":
        raise ValueError(f'bias must be "absorb" or "distribute", not {rule.bias!r}')
    denominator = total + stabiliser
    empty = denominator == 0
    return z * np.where(empty, 0.0, R / np.where(empty, 1.0, denominator))[:, None]


def linear(weight: Array, bias: Array, x: Array, R: Array, rule: Rule) -> Array:
    """The relevance (n,) of x from that of weight x + bias."""
    z = weight * x
    received: Array = messages(z, bias, z.sum(1) + bias, R, rule).sum(0)
    return received


def shares(gate: Array, signal: Array, rule: Rule) -> tuple[Array, Array]:
    """The shares of a gate and of a signal in the relevance of their product (Arras et al. 2019)."""
    if rule.gate == "signal-take-all":
        return np.zeros_like(gate), np.ones_like(gate)
    if rule.gate == "half":
        return np.full_like(gate, 0.5), np.full_like(gate, 0.5)
    if rule.gate == "absolute":
        total = np.abs(gate) + np.abs(signal) + rule.gate_eps
        return np.abs(gate) / total, np.abs(signal) / total
    if rule.gate == "proportional":
        total = gate + signal
        total = total + rule.gate_eps * sign(total)
        return gate / total, signal / total
    raise ValueError(f"no variant {rule.gate!r}")


def sigmoid(a: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-a))
    return result


@dataclass(frozen=True)
class Cell:
    """A layer in one direction: W (k d, e) for the input, U (k d, p) for the state, b and b' (k d,), P (p, d) or None.

    `step` gives the next state and what `back` needs of the step; `back` turns the relevance of the next state into
    that of the input and of the state before.
    """

    W: Array
    U: Array
    b: Array
    b_state: Array
    P: Array | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many units each part of the state has."""
        return (self.U.shape[1],)

    def step(self, x: Array, state: State) -> tuple[State, dict[str, Array]]:
        raise NotImplementedError

    def back(self, seen: Mapping[str, Array], R: State, rule: Rule) -> tuple[Array, State]:
        raise NotImplementedError

    def block(self, k: int) -> slice:
        """The rows of gate k."""
        size = self.width
        return slice(k * size, (k + 1) * size)

    @property
    def width(self) -> int:
        raise NotImplementedError

    def gate_back(self, k: int, x: Array, h: Array, R: Array, rule: Rule) -> tuple[Array, Array]:
        """The relevance of x and h from that of the pre-activation of gate k."""
        if not R.any():
            return np.zeros_like(x), np.zeros_like(h)
        rows = self.block(k)
        joint = np.hstack([self.W[rows], self.U[rows]])
        received = linear(joint, self.b[rows] + self.b_state[rows], np.concatenate([x, h]), R, rule)
        return received[: len(x)], received[len(x) :]


def sum_back(summands: Sequence[Array], R: Array, rule: Rule) -> list[Array]:
    """The relevance of each summand (d,) from that of their sum (d,); the lower units are all units of all summands."""
    z = np.hstack([np.diag(summand) for summand in summands])
    received = messages(z, np.zeros_like(R), z.sum(1), R, rule).sum(0)
    return np.split(received, len(summands))


class LSTMCell(Cell):
    @property
    def width(self) -> int:
        return len(self.W) // 4

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.U.shape[1], self.width)

    def step(self, x: Array, state: State) -> tuple[State, dict[str, Array]]:
        h, c = state
        a = self.W @ x + self.b + self.U @ h + self.b_state
        i, f, g, o = (a[self.block(k)] for k in range(4))
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c_next = f * c + i * g
        m = o * np.tanh(c_next)
        h_next = m if self.P is None else self.P @ m
        return (h_next, c_next), {"x": x, "h": h, "c": c, "i": i, "f": f, "g": g, "o": o, "c_next": c_next, "m": m}

    def back(self, seen: Mapping[str, Array], R: State, rule: Rule) -> tuple[Array, State]:
        R_h, R_c = R
        R_m = R_h if self.P is None else linear(self.P, np.zeros(len(R_h)), seen["m"], R_h, rule)
        to_gate, to_signal = shares(seen["o"], np.tanh(seen["c_next"]), rule)
        R_o, R_c = to_gate * R_m, R_c + to_signal * R_m
        R_kept, R_new = sum_back([seen["f"] * seen["c"], seen["i"] * seen["g"]], R_c, rule)
        to_gate, to_signal = shares(seen["f"], seen["c"], rule)
        R_f, R_c_before = to_gate * R_kept, to_signal * R_kept
        to_gate, to_signal = shares(seen["i"], seen["g"], rule)
        R_i, R_g = to_gate * R_new, to_signal * R_new
        parts = [self.gate_back(k, seen["x"], seen["h"], R, rule) for k, R in enumerate([R_i, R_f, R_g, R_o])]
        return sum_of(R_x for R_x, _ in parts), (sum_of(R_h for _, R_h in parts), R_c_before)


class GRUCell(Cell):
    @property
    def width(self) -> int:
        return len(self.W) // 3

    def step(self, x: Array, state: State) -> tuple[State, dict[str, Array]]:
        (h,) = state
        a, a_state = self.W @ x + self.b, self.U @ h + self.b_state
        r, z = (sigmoid(a[self.block(k)] + a_state[self.block(k)]) for k in range(2))
        s = a_state[self.block(2)]
        n = np.tanh(a[self.block(2)] + r * s)
        return ((1 - z) * n + z * h,), {"x": x, "h": h, "r": r, "z": z, "n": n, "s": s}

    def back(self, seen: Mapping[str, Array], R: State, rule: Rule) -> tuple[Array, State]:
        x, h, z, n = (seen[name] for name in "xhzn")
        R_new, R_kept = sum_back([(1 - z) * n, z * h], R[0], rule)
        to_gate, to_signal = shares(1 - z, n, rule)
        R_z, R_n = to_gate * R_new, to_signal * R_new
        to_gate, to_signal = shares(z, h, rule)
        R_z, R_h = R_z + to_gate * R_kept, to_signal * R_kept
        R_x, R_h_candidate, R_r = self.candidate_back(seen, R_n, rule)
        parts = [self.gate_back(k, x, h, R, rule) for k, R in enumerate([R_r, R_z])]
        R_x = R_x + sum_of(R_x for R_x, _ in parts)
        return R_x, (R_h + R_h_candidate + sum_of(R_h for _, R_h in parts),)

    def candidate_back(self, seen: Mapping[str, Array], R: Array, rule: Rule) -> tuple[Array, Array, Array]:
        """The relevance of x, h and the gate r from that of a = W x + b + r (U h + b').

        The gate takes its share of the summand r (U h + b'); of the rest, U h and b' take theirs in proportion.
        """
        x, h, r, s = (seen[name] for name in "xhrs")
        rows = self.block(2)
        W, U, b, b_state = self.W[rows], self.U[rows], self.b[rows], self.b_state[rows]
        to_gate, to_signal = shares(r, s, rule)
        z = np.hstack([W * x, (to_signal * r)[:, None] * U * h, np.diag(to_gate * r * s)])
        total = W @ x + b + r * s
        received = messages(z, b + to_signal * r * b_state, total, R, rule, lower=len(x) + len(h)).sum(0)
        R_x, R_h, R_r = np.split(received, [len(x), len(x) + len(h)])
        return R_x, R_h, R_r


class TanhCell(Cell):
    @property
    def width(self) -> int:
        return len(self.W)

    def step(self, x: Array, state: State) -> tuple[State, dict[str, Array]]:
        (h,) = state
        return (self.activation(self.W @ x + self.b + self.U @ h + self.b_state),), {"x": x, "h": h}

    def back(self, seen: Mapping[str, Array], R: State, rule: Rule) -> tuple[Array, State]:
        R_x, R_h = self.gate_back(0, seen["x"], seen["h"], R[0], rule)
        return R_x, (R_h,)

    def activation(self, a: Array) -> Array:
        result: Array = np.tanh(a)
        return result


class ReluCell(TanhCell):
    def activation(self, a: Array) -> Array:
        return np.maximum(a, 0)


def sum_of(arrays: Any) -> Array:
    result: Array = sum(arrays, start=np.zeros(1))
    return result


CELLS: dict[str, type[Cell]] = {"lstm": LSTMCell, "gru": GRUCell, "rnn_tanh": TanhCell, "rnn_relu": ReluCell}


@dataclass(frozen=True)
class Recurrent:
    """Layers of cells, each layer with one or two directions; the second reads the sequence backwards."""

    layers: tuple[tuple[Cell, ...], ...]

    @classmethod
    def of(cls, kind: str, weights: Mapping[str, Any]) -> Recurrent:
        """From the parameters of nn.LSTM, nn.GRU or nn.RNN (weight_ih_l0, ...), as arrays, biases optional.

        kind: "lstm", "gru", "rnn_tanh" or "rnn_relu".
        """
        layers: list[tuple[Cell, ...]] = []
        while f"weight_ih_l{len(layers)}" in weights:
            ends = [f"_l{len(layers)}", f"_l{len(layers)}_reverse"]
            ends = [end for end in ends if f"weight_ih{end}" in weights]
            layers.append(tuple(CELLS[kind](*_cell_arrays(weights, end)) for end in ends))
        return cls(tuple(layers))

    @classmethod
    def of_cell(cls, kind: str, weights: Mapping[str, Any]) -> Recurrent:
        """From the parameters of nn.LSTMCell, nn.GRUCell or nn.RNNCell (weight_ih, ...)."""
        return cls(((CELLS[kind](*_cell_arrays(weights, "")),),))

    @property
    def cells(self) -> list[Cell]:
        """All cells in torch's order of initial and final states."""
        return [cell for layer in self.layers for cell in layer]


def _cell_arrays(weights: Mapping[str, Any], end: str) -> list[Array | None]:
    """W, U, b, b', P."""
    named = {name: np.asarray(array, dtype=np.float64) for name, array in weights.items()}
    W = named[f"weight_ih{end}"]
    none = np.zeros(len(W))
    b, b_state = named.get(f"bias_ih{end}", none), named.get(f"bias_hh{end}", none)
    return [W, named[f"weight_hh{end}"], b, b_state, named.get(f"weight_hr{end}")]


@dataclass(frozen=True)
class Run:
    """One forward pass over a sequence x (T, e).

    output: (T, directions * p), the last layer's hidden states; states: the final (h,) or (h, c) of every cell.
    seen: per cell, what each of its steps needs on the way back, in the order in which it ran.
    """

    output: Array
    states: list[State]
    seen: list[list[dict[str, Array]]]


def forward(network: Recurrent, x: Array, initial: Sequence[State] | None = None) -> Run:
    """initial: the state of every cell before its first step; zeros by default."""
    if initial is None:
        initial = [tuple(np.zeros(size) for size in cell.sizes) for cell in network.cells]
    states, records = [], []
    before = iter(initial)
    for layer in network.layers:
        outputs = []
        for direction, cell in enumerate(layer):
            state, seen, hidden = next(before), [], []
            for x_t in x[::-1] if direction else x:
                state, step = cell.step(x_t, state)
                seen.append(step)
                hidden.append(state[0])
            outputs.append(hidden[::-1] if direction else hidden)
            states.append(state)
            records.append(seen)
        x = np.concatenate(outputs, axis=1)
    return Run(x, states, records)


@dataclass(frozen=True)
class Relevance:
    """x: (T, e); states: the relevance of the initial state of every cell."""

    x: Array
    states: list[State]

    @property
    def total(self) -> float:
        return float(self.x.sum() + sum(part.sum() for state in self.states for part in state))

    @property
    def rest(self) -> float:
        """What the initial states got."""
        return float(sum(part.sum() for state in self.states for part in state))


def relevance(
    network: Recurrent, run: Run, rule: Rule, R_output: Array | None = None, R_states: Sequence[State] | None = None
) -> Relevance:
    """The relevance of the sequence and of the initial states.

    R_output: that of the hidden states, (T, directions * p); R_states: that of every cell's final state. None: zero.
    """
    R_above = np.zeros_like(run.output) if R_output is None else R_output
    if R_states is None:
        R_states = [tuple(np.zeros_like(part) for part in state) for state in run.states]
    R_initial: list[State] = []
    index = len(network.cells)
    for layer in reversed(network.layers):
        index -= len(layer)
        R_inputs, R_before = [], []
        for direction, R_hidden in enumerate(np.split(R_above, len(layer), axis=1)):
            seen, R = run.seen[index + direction], R_states[index + direction]
            R_x = [np.zeros(layer[direction].W.shape[1])] * len(seen)
            for t in reversed(range(len(seen))):
                h = R_hidden[len(seen) - 1 - t if direction else t]
                R_x[t], R = layer[direction].back(seen[t], (R[0] + h, *R[1:]), rule)
            R_inputs.append(np.array(R_x[::-1] if direction else R_x))
            R_before.append(R)
        R_above = sum_of(R_inputs)
        R_initial = R_before + R_initial
    return Relevance(R_above, R_initial)
