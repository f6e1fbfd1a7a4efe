"""Usual mistakes in bringing weights from one toolbox to another, and how a model would be without them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from relprop.models.arrays import channels_first
from relprop.models.recurrent import RecurrentNetwork

Inputs = tuple[Any, ...]


@dataclass(frozen=True)
class Mistake:
    """what: what may be wrong, with the line to write. run: the output without it."""

    what: str
    run: Callable[[Inputs], Any]


def mistakes(model: nn.Module, x: Inputs) -> Iterator[Mistake]:
    """Each usual mistake that this model can have. The model itself is never changed."""
    duplicate = copy.deepcopy(model)

    def corrected(parameters: dict[str, Tensor]) -> Callable[[Inputs], Any]:
        return lambda inputs: functional_call(duplicate, parameters, inputs)

    for what, parameters in itertools.chain(
        _gate_orders(duplicate), _directions(duplicate), _biases(duplicate), _flatten_orders(duplicate, x)
    ):
        yield Mistake(what, corrected(parameters))
    yield from (Mistake(what, corrected(parameters)) for what, parameters in _transpositions(duplicate))
    yield from _inputs(duplicate, x)
    yield from _batch_first(duplicate)


Change = tuple[str, dict[str, Tensor]]


def _recurrent(model: nn.Module) -> list[tuple[str, nn.LSTM | nn.GRU]]:
    return [(name, m) for name, m in model.named_modules() if isinstance(m, (nn.LSTM, nn.GRU))]


def _own(name: str, module: nn.Module) -> dict[str, Tensor]:
    """A module's own parameters by their names in the model."""
    prefix = f"{name}." if name else ""
    return {prefix + key: p.detach() for key, p in module.named_parameters(recurse=False)}


def _gate_orders(model: nn.Module) -> Iterator[Change]:
    """All recurrent layers of a kind with their gate blocks in another order; GRUs with z and 1 - z swapped."""
    for kind, letters in ((nn.LSTM, "ifgo"), (nn.GRU, "rzn")):
        tensors = {k: v for n, m in _recurrent(model) if isinstance(m, kind) for k, v in _own(n, m).items()}
        tensors = {k: v for k, v in tensors.items() if "weight_hr" not in k}
        if not tensors:
            continue
        given = next((m.gate_order for m in model.modules() if isinstance(m, RecurrentNetwork)), letters)
        for order in map("".join, itertools.permutations(letters)):
            if order != given:
                # given[k] is the slot that holds the k-th block of the arrays; in truth it is that of gate order[k].
                slots = [letters.index(given[order.index(letter)]) for letter in letters]
                what = f'the gates are in the order {", ".join(order)}, not {", ".join(given)}: gate_order="{order}"'
                yield what, {k: _reordered(v, slots) for k, v in tensors.items()}
        if kind is nn.GRU:
            yield (
                "the update gate z is the share of the new state, not of the old one: change the sign of its weights "
                "and biases",
                {k: _with_block(v, 1, 3, torch.neg) for k, v in tensors.items()},
            )
        else:
            forget = {k: _with_block(v, 1, 4, lambda b: b + 1) for k, v in tensors.items() if "bias_ih" in k}
            if forget:
                yield "the toolbox adds 1 to the forget gate's bias (TensorFlow's forget_bias): add it", forget


def _reordered(tensor: Tensor, slots: list[int]) -> Tensor:
    blocks = tensor.chunk(len(slots))
    return torch.cat([blocks[slot] for slot in slots])


def _with_block(tensor: Tensor, index: int, count: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The tensor with one of its blocks of rows changed."""
    blocks = list(tensor.chunk(count))
    blocks[index] = change(blocks[index])
    return torch.cat(blocks)


def _directions(model: nn.Module) -> Iterator[Change]:
    """The directions of bidirectional layers swapped: their weights, the head's inputs, or both."""
    layers = [(n, m) for n, m in _recurrent(model) if m.bidirectional]
    if not layers:
        return
    swapped: dict[str, Tensor] = {}
    for name, module in layers:
        own = _own(name, module)
        for key in own:
            if not key.endswith("_reverse"):
                swapped[key], swapped[f"{key}_reverse"] = own[f"{key}_reverse"], own[key]
    yield (
        "the weights of the two directions are swapped: first comes the one that reads from the start, reverse= is the "
        "one that reads from the end",
        swapped,
    )
    widths = {2 * m.hidden_size for _, m in layers}
    heads = {
        key: torch.cat([w[:, w.shape[1] // 2 :], w[:, : w.shape[1] // 2]], 1)
        for n, m in model.named_modules()
        if isinstance(m, nn.Linear) and m.in_features in widths
        for key, w in _own(n, m).items()
        if key.endswith("weight")
    }
    if heads:
        yield (
            "the head has the two directions swapped: its first half, head[0], is for reading from the start",
            heads,
        )
        yield "the two directions are swapped, in the recurrent weights and in the head", {**swapped, **heads}


def _biases(model: nn.Module) -> Iterator[Change]:
    """One bias too many or counted twice, layer by layer and in all at once."""
    everywhere: dict[str, dict[str, Tensor]] = {}
    for name, module in model.named_modules():
        for key, p in _own(name, module).items():
            if "bias" not in key.rsplit(".", 1)[-1] or not bool(p.any()):
                continue
            yield (
                f"{key} is one bias too many: leave it out (its values are in another, or the toolbox has none)",
                {key: torch.zeros_like(p)},
            )
            yield f"{key} counts twice in the toolbox, or another like it is missing", {key: 2 * p}
            place = "bias_ih" if "bias_ih" in key else "bias_hh" if "bias_hh" in key else "bias"
            for kind in (place, "any"):
                everywhere.setdefault(kind, {})[key] = p
    for kind, what in (
        ("bias_hh", "the recurrent layers have one bias in the toolbox and two here: leave the second, bias_hh, out"),
        ("bias_ih", "the recurrent layers have one bias in the toolbox and two here: leave the first, bias_ih, out"),
        ("any", "the toolbox has no biases: leave them out"),
    ):
        if len(everywhere.get(kind, ())) > 1:
            yield what, {key: torch.zeros_like(p) for key, p in everywhere[kind].items()}


def _transpositions(model: nn.Module) -> Iterator[Change]:
    """Matrices whose shape does not tell that they are transposed, or that were reshaped instead of transposed."""
    together: dict[str, dict[str, Tensor]] = {}
    for name, module in model.named_modules():
        for key, p in _own(name, module).items():
            blocks = {nn.LSTM: 4, nn.GRU: 3}.get(type(module), 1)
            for what, values in _other_readings(module, key, p, blocks):
                yield f"{key} {what}", {key: values}
                together.setdefault(what, {})[key] = values
    for what, changed in together.items():
        if len(changed) > 1:
            yield f"each of {', '.join(changed)} {what}", changed


def _other_readings(module: nn.Module, key: str, p: Tensor, blocks: int) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(module, (nn.Linear, nn.LSTM, nn.GRU, nn.Conv1d, nn.Conv2d)) or p.dim() < 2:
        return
    if p.dim() > 2:
        yield from _other_kernels(p)
        return
    if p.shape[0] == p.shape[1]:
        yield "is transposed, which its square shape does not show: give its .T", p.T
        return
    if blocks > 1 and p.shape[0] == blocks * p.shape[1]:
        yield "has each gate's square block transposed", torch.cat([b.T for b in p.chunk(blocks)])
    yield "was reshaped where it should have been transposed: write .T for .reshape", p.reshape(p.shape[::-1]).T


def _other_kernels(p: Tensor) -> Iterator[tuple[str, Tensor]]:
    spatial = tuple(range(2, p.dim()))
    if p.shape[0] == p.shape[1]:
        yield "has inputs and outputs swapped: transpose its first two dimensions", p.transpose(0, 1)
    if p.dim() == 4 and p.shape[2] == p.shape[3] > 1:
        yield "has height and width swapped: transpose its last two dimensions", p.transpose(2, 3)
    if any(p.shape[d] > 1 for d in spatial):
        yield "is flipped, as in a true convolution: flip it over its length, or height and width", p.flip(spatial)


def _flatten_orders(model: nn.Module, x: Inputs) -> Iterator[Change]:
    """The inputs of linear layers that follow a flatten, with channels last where they were first."""
    counts = {m.out_channels for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d))}
    images = [t for t in x if isinstance(t, Tensor) and t.dim() >= 3 and t.is_floating_point()]
    counts |= {t.shape[1] for t in images} | {t.shape[-1] for t in images}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        key = f"{name}.weight" if name else "weight"
        weight = module.weight.detach()
        for channels in sorted(counts):
            if 1 < channels < weight.shape[1] and weight.shape[1] % channels == 0:
                split = channels_first(weight, channels)
                yield (
                    f"{key} follows a flatten that had the {channels} channels last: put its inputs in the order "
                    'channels, height, width, as layout="keras" does',
                    {key: split},
                )


def _inputs(model: nn.Module, x: Inputs) -> Iterator[Mistake]:
    """The input's dimensions in another order, or the words from the end."""
    if len(x) != 1 or not isinstance(x[0], Tensor):
        return
    dims = x[0].dim()
    if dims == 4:
        yield Mistake(
            "x has its channels last: give channels first, x.permute(0, 3, 1, 2)",
            lambda inputs: model(inputs[0].permute(0, 3, 1, 2)),
        )
        yield Mistake(
            "x has its channels first: this model wants them last, x.permute(0, 2, 3, 1)",
            lambda inputs: model(inputs[0].permute(0, 2, 3, 1)),
        )
        yield Mistake(
            "x has height and width swapped: x.transpose(2, 3)", lambda inputs: model(inputs[0].transpose(2, 3))
        )
    if dims == 3:
        yield Mistake(
            "x has its last two dimensions swapped: x.transpose(1, 2)",
            lambda inputs: model(inputs[0].transpose(1, 2)),
        )
    if dims in (2, 3) and _recurrent(model):
        yield Mistake("the toolbox reads the sequence from its end: x.flip(1)", lambda inputs: model(inputs[0].flip(1)))


def _batch_first(model: nn.Module) -> Iterator[Mistake]:
    """Time and batch swapped, in the input or in the recurrent layers."""
    layers = _recurrent(model)
    if not layers:
        return
    yield Mistake(
        "x has time and batch swapped: x.transpose(0, 1)",
        lambda inputs: model(*(t.transpose(0, 1) if isinstance(t, Tensor) and t.dim() > 1 else t for t in inputs)),
    )
    other = copy.deepcopy(model)
    for _, module in _recurrent(other):
        module.batch_first = not module.batch_first
    wanted = not layers[0][1].batch_first
    yield Mistake(
        f"the recurrent layers take {'time' if wanted else 'the batch'} first and get the other: batch_first={wanted}",
        lambda inputs: other(*inputs),
    )
