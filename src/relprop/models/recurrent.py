"""LSTM and GRU networks from arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from relprop.errors import InvalidInput
from relprop.models.arrays import Array, fill, linear, require_one_dtype, require_vector, tensor_of


class RecurrentNetwork(nn.Module):
    """Embedding (if any), recurrent layer, linear head (if any) on the last states of its one or two directions.

    Takes token ids (batch, time) where there is an embedding, else values (batch, time, e). Returns scores
    (batch, classes), or without a head the last states, (batch, d) or, forward beside reverse, (batch, 2d).
    gate_order: in which order the arrays held the gates; the modules have PyTorch's.
    """

    def __init__(
        self, embedding: nn.Embedding | None, recurrent: nn.LSTM | nn.GRU, head: nn.Linear | None, gate_order: str
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.recurrent = recurrent
        self.head = head
        self.gate_order = gate_order

    def forward(self, x: Tensor) -> Tensor:
        if self.embedding is not None:
            x = self.embedding(x)
        _, last = self.recurrent(x)
        hidden = last[0] if isinstance(last, tuple) else last
        states = torch.cat([hidden[0], hidden[1]], 1) if self.recurrent.bidirectional else hidden[0]
        return states if self.head is None else self.head(states)


def lstm(
    weights: Sequence[Array],
    reverse: Sequence[Array] | None = None,
    *,
    gate_order: str = "ifgo",
    embedding: Array | None = None,
    head: Array | tuple[Array, Array] | None = None,
    head_bias: Array | None = None,
) -> RecurrentNetwork:
    """An LSTM classifier or regressor from arrays, in evaluation mode, of the arrays' dtype.

    weights: (weight_ih, weight_hh), then no, one or two biases, each (4d,). The layout is seen from weight_hh:
        (4d, d) is PyTorch's, with weight_ih (4d, e); (d, 4d) is Keras', with a kernel (e, 4d), so that
        `lstm(layer.get_weights())` takes a Keras layer's weights as they are. e inputs, d units.
    reverse: the same for the direction that reads from the end; with it the network is bidirectional.
    gate_order: the order of the four blocks: i input gate, f forget gate, o output gate, and g, also written c, the
        candidate. "ifgo" is PyTorch's; "ifco" is Keras' name for the same order; "igfo" is that of Arras et al. (2017)
        and of TensorFlow 1. Any other order of the four letters is understood too.
    embedding: (tokens, e); with it the network takes token ids (batch, time), without it values (batch, time, e).
    head: (classes, d), with Keras' layout (d, classes), on the last state; if bidirectional either one matrix for
        both states beside each other, forward first, 2d wide, or two: (on the forward state, on the reverse state).
    head_bias: (classes,).

    Raises InvalidInput for shapes and dtypes that don't fit, NonFinite for NaN. `relprop.check_forward` tells whether
    the scores are those of the toolbox the weights came from.
    """
    order = _order(gate_order, "ifgo", {"c": "g", "j": "g"})
    directions = _directions(weights, reverse, order, torch_order="ifgo", keras_order="ifgo")
    return _network(nn.LSTM, directions, embedding, head, head_bias, order)


def gru(
    weights: Sequence[Array],
    reverse: Sequence[Array] | None = None,
    *,
    gate_order: str | None = None,
    embedding: Array | None = None,
    head: Array | tuple[Array, Array] | None = None,
    head_bias: Array | None = None,
) -> RecurrentNetwork:
    """A GRU classifier or regressor from arrays; arguments as for `lstm`, with three blocks instead of four.

    weights: (weight_ih, weight_hh) and biases; Keras' one bias of shape (2, 3d) counts as two.
    gate_order: r reset gate, z update gate, n (also written h or c) candidate. Default: "rzn", PyTorch's, where the
        arrays have PyTorch's layout, and "zrh", Keras', where they have Keras'.

    The reset gate works on the recurrent product, as in PyTorch and in Keras with reset_after=True.
    """
    order = None if gate_order is None else _order(gate_order, "rzn", {"h": "n", "c": "n"})
    directions = _directions(weights, reverse, order, torch_order="rzn", keras_order="zrn")
    return _network(nn.GRU, directions, embedding, head, head_bias, order or ("zrn" if directions[0].keras else "rzn"))


def _order(gate_order: str, letters: str, synonyms: dict[str, str]) -> str:
    """A gate order in PyTorch's letters."""
    order = "".join(synonyms.get(letter, letter) for letter in gate_order.lower())
    if sorted(order) != sorted(letters):
        raise InvalidInput(
            f"gate_order: got {gate_order!r}, expected each of the letters {', '.join(letters)} once, in the order in "
            f'which the arrays hold the blocks. PyTorch\'s is "{letters}"'
        )
    return order


@dataclass(frozen=True)
class _Direction:
    """Weights (k d, e), (k d, d) and biases (k d,) of one direction, blocks in PyTorch's order."""

    weight_ih: Tensor
    weight_hh: Tensor
    biases: tuple[Tensor, ...]
    keras: bool

    @property
    def units(self) -> int:
        return self.weight_hh.shape[1]

    @property
    def inputs(self) -> int:
        return self.weight_ih.shape[1]


def _directions(
    weights: Sequence[Array], reverse: Sequence[Array] | None, order: str | None, torch_order: str, keras_order: str
) -> list[_Direction]:
    found = [_direction("weights", weights, order, torch_order, keras_order)]
    if reverse is not None:
        found.append(_direction("reverse", reverse, order, torch_order, keras_order))
        first, second = found
        if (first.inputs, first.units, first.keras) != (second.inputs, second.units, second.keras):
            raise InvalidInput(
                f"the directions differ: weights have {first.inputs} inputs and {first.units} units, reverse has "
                f"{second.inputs} and {second.units}. Both must have the same, in the same layout"
            )
    return found


def _direction(
    name: str, weights: Sequence[Array], order: str | None, torch_order: str, keras_order: str
) -> _Direction:
    if not isinstance(weights, (list, tuple)) or not 2 <= len(weights) <= 4:
        got = f"{len(weights)} arrays" if isinstance(weights, (list, tuple)) else type(weights).__name__
        raise InvalidInput(
            f"{name}: got {got}, expected a list of two to four: [weight_ih, weight_hh], then no, one or two biases. "
            "The six arrays of a bidirectional Keras layer are its weights, w[:3], and reverse, w[3:]"
        )
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    tensors = {f"{name}[{i}] ({kinds[i]})": tensor_of(f"{name}[{i}] ({kinds[i]})", w) for i, w in enumerate(weights)}
    require_one_dtype(tensors)
    names = list(tensors)
    blocks = len(torch_order)
    keras, units = _layout(names[1], tensors[names[1]], blocks)
    weight_ih, weight_hh = tensors[names[0]], tensors[names[1]]
    _require_input_weights(names[0], weight_ih, blocks * units, keras)
    if keras:
        weight_ih, weight_hh = weight_ih.T, weight_hh.T
    biases = _biases({k: tensors[k] for k in names[2:]}, blocks * units, keras and blocks == 3)
    given = order or (keras_order if keras else torch_order)

    def reordered(tensor: Tensor) -> Tensor:
        parts = tensor.chunk(blocks)
        return torch.cat([parts[given.index(letter)] for letter in torch_order])

    return _Direction(reordered(weight_ih), reordered(weight_hh), tuple(reordered(b) for b in biases), keras)


def _layout(name: str, weight_hh: Tensor, blocks: int) -> tuple[bool, int]:
    """(whether the layout is Keras', units), from the shape of the recurrent weights."""
    shape = tuple(weight_hh.shape)
    if len(shape) == 2 and shape[1] > 0 and shape[0] == blocks * shape[1]:
        return False, shape[1]
    if len(shape) == 2 and shape[0] > 0 and shape[1] == blocks * shape[0]:
        return True, shape[0]
    raise InvalidInput(
        f"{name} has shape {shape}; expected ({blocks}d, d), PyTorch's layout, or (d, {blocks}d), Keras', for d units"
    )


def _require_input_weights(name: str, weight_ih: Tensor, rows: int, keras: bool) -> None:
    shape = tuple(weight_ih.shape)
    side = 1 if keras else 0
    if len(shape) == 2 and shape[side] == rows:
        return
    expected = f"(e, {rows}), in Keras' layout" if keras else f"({rows}, e), in PyTorch's layout"
    transposed = ". It looks transposed: write weight_ih.T" if len(shape) == 2 and shape[1 - side] == rows else ""
    raise InvalidInput(f"{name} has shape {shape}; expected {expected} as weight_hh has it{transposed}")


def _biases(given: dict[str, Tensor], rows: int, keras_gru: bool) -> list[Tensor]:
    if keras_gru and len(given) == 1:
        ((name, bias),) = given.items()
        if bias.dim() == 1:
            raise InvalidInput(
                f"{name} has shape {tuple(bias.shape)}: a Keras GRU with one bias has reset_after=False, whose reset "
                "gate works before the product, which nn.GRU can't do. Explain the Keras model itself; or, if your "
                "formula is that of nn.GRU, give two biases, the second zero"
            )
        if bias.dim() == 2 and bias.shape[0] == 2:
            given = {f"{name}[0]": bias[0], f"{name}[1]": bias[1]}
    for name, bias in given.items():
        require_vector(name, bias, rows, "one number for each unit of each gate")
    return list(given.values())


def _network(
    kind: type[nn.LSTM] | type[nn.GRU],
    directions: list[_Direction],
    embedding: Array | None,
    head: Array | tuple[Array, Array] | None,
    head_bias: Array | None,
    order: str,
) -> RecurrentNetwork:
    first = directions[0]
    recurrent = kind(
        first.inputs,
        first.units,
        bias=any(d.biases for d in directions),
        batch_first=True,
        bidirectional=len(directions) == 2,
        dtype=first.weight_ih.dtype,
    )
    for direction, suffix in zip(directions, ("", "_reverse"), strict=False):
        fill(getattr(recurrent, f"weight_ih_l0{suffix}"), direction.weight_ih)
        fill(getattr(recurrent, f"weight_hh_l0{suffix}"), direction.weight_hh)
        none = torch.zeros(direction.weight_ih.shape[0])
        given = [*direction.biases, none, none]
        for name, bias in zip(("bias_ih", "bias_hh"), given, strict=False) if recurrent.bias else ():
            fill(getattr(recurrent, f"{name}_l0{suffix}"), bias)
    network = RecurrentNetwork(_embedding(embedding, first), recurrent, _head(head, head_bias, directions), order)
    require_one_dtype({name: p.detach() for name, p in network.named_parameters()})
    return network.eval()


def _embedding(table: Array | None, direction: _Direction) -> nn.Embedding | None:
    if table is None:
        return None
    values = tensor_of("embedding", table)
    if values.dim() != 2 or values.shape[1] != direction.inputs:
        raise InvalidInput(
            f"embedding has shape {tuple(values.shape)}; expected (tokens, {direction.inputs}), as weight_ih takes "
            f"{direction.inputs} inputs"
        )
    module = nn.Embedding(values.shape[0], values.shape[1], dtype=values.dtype)
    fill(module.weight, values)
    return module


def _head(
    head: Array | tuple[Array, Array] | None, bias: Array | None, directions: list[_Direction]
) -> nn.Linear | None:
    if head is None:
        if bias is not None:
            raise InvalidInput("head_bias is given without a head; give head=..., the weights it belongs to")
        return None
    units, keras = directions[0].units, directions[0].keras
    if isinstance(head, tuple):
        if len(head) != len(directions):
            raise InvalidInput(
                f"head holds {len(head)} matrices for {len(directions)} direction{'s' * (len(directions) > 1)}; give "
                "one for each, (forward, reverse), or one matrix on all states"
            )
        parts = [_head_part(f"head[{i}]", w, units, keras) for i, w in enumerate(head)]
        if len({p.shape for p in parts}) > 1:
            raise InvalidInput(f"head: the two matrices give {parts[0].shape[0]} and {parts[1].shape[0]} scores")
        weight = torch.cat(parts, 1)
    else:
        weight = _head_part("head", head, units * len(directions), keras)
    values = None if bias is None else tensor_of("head_bias", bias)
    if values is not None:
        require_vector("head_bias", values, weight.shape[0], "one number for each score")
    return linear(weight, values)


def _head_part(name: str, array: Array, states: int, keras: bool) -> Tensor:
    """The matrix (classes, states)."""
    weight = tensor_of(name, array)
    side = 0 if keras else 1
    if weight.dim() == 2 and weight.shape[side] == states:
        return weight.T if keras else weight
    expected = f"({states}, classes), in Keras' layout" if keras else f"(classes, {states}), in PyTorch's layout"
    transposed = (
        f". It looks transposed: write {name}.T" if weight.dim() == 2 and weight.shape[1 - side] == states else ""
    )
    raise InvalidInput(f"{name} has shape {tuple(weight.shape)}; expected {expected} as weight_hh has it{transposed}")
