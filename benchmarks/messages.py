"""LRP of an LSTM by explicit message matrices in NumPy, one sequence at a time, against a batch by relprop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

import relprop
from benchmarks.sequences import Reader, signal
from benchmarks.timing import in_turns, quartiles
from tests.oracle import recurrent as oracle

SIZES = ((60, 25, 256), (128, 200, 256))


@dataclass
class Messages:
    """Median processor seconds of one sequence, forward pass included."""

    units: int
    steps: int
    batch: int
    relprop: float
    messages: float


def against_messages(units: int, steps: int, batch: int, repeats: int) -> Messages:
    """LRP of a whole batch, per sequence, and the explicit messages of one sequence."""
    torch.manual_seed(0)
    layer = nn.LSTM(units, units, batch_first=True)
    model, x = Reader(layer, units).eval(), signal(batch, steps, units)
    explainer = relprop.Explainer(model, "epsilon")
    network = oracle.Recurrent.of("lstm", {name: p.detach().double().numpy() for name, p in layer.named_parameters()})
    sequence, start = x[0].double().numpy(), np.zeros((steps, units))
    start[-1] = 1.0

    def messages() -> None:
        oracle.relevance(network, oracle.forward(network, sequence), oracle.Rule(1e-6), start)

    actions = {"relprop": lambda: explainer(x, 1), "messages": messages}
    taken = in_turns(actions, dict.fromkeys(actions), repeats, seconds=30.0, unit="relprop")
    cpu = {name: quartiles(list(times.cpu.values()))[1] for name, times in taken.items()}
    return Messages(units, steps, batch, cpu["relprop"] / batch, cpu["messages"])
