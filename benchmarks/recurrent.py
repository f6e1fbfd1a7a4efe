"""What LRP of a recurrent layer costs: against one gradient, and against explicit message matrices in NumPy.

    python benchmarks/recurrent.py [--repeats 7] [--cell lstm]

Process CPU time; the cases of a row are interleaved, and medians are printed. "gradient" is one forward and one
backward pass to the input of the same model, with parameters that require gradients, as an ordinary model's do, and
without ("frozen"). Message matrices are made for one sequence at a time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from timing import gradient, medians
from torch import Tensor, nn

import relprop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.oracle import recurrent as oracle

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN}


class Reader(nn.Module):
    def __init__(self, cell: str, units: int) -> None:
        super().__init__()
        self.layer = CELLS[cell](units, units, batch_first=True)
        self.head = nn.Linear(units, 2)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.layer(x)[0][:, -1])
        return scores


def against_gradient(cell: str, units: int, steps: int, batch: int, repeats: int) -> None:
    torch.manual_seed(0)
    model, x = Reader(cell, units).eval(), torch.randn(batch, steps, units)
    frozen = Reader(cell, units).eval().requires_grad_(False)
    frozen.load_state_dict(model.state_dict())
    explainer, of_frozen = relprop.Explainer(model, "epsilon"), relprop.Explainer(frozen, "epsilon")
    taken = medians(
        {
            "gradient": lambda: gradient(model, x),
            "LRP": lambda: explainer(x, 1),
            "gradient, frozen": lambda: gradient(frozen, x),
            "LRP, frozen": lambda: of_frozen(x, 1),
        },
        repeats,
    )
    print(
        f"{cell:9s} {units:4d} units {steps:4d} steps batch {batch:4d}: gradient {taken['gradient']:.3f} s, "
        f"LRP {taken['LRP']:.3f} s, ratio {taken['LRP'] / taken['gradient']:.2f}; "
        f"frozen {taken['LRP, frozen'] / taken['gradient, frozen']:.2f}"
    )


def against_messages(units: int, steps: int, batch: int, repeats: int) -> None:
    """LRP of a whole batch, per sequence, and the explicit messages of one sequence; both with their forward pass."""
    torch.manual_seed(0)
    model, x = Reader("lstm", units).eval(), torch.randn(batch, steps, units)
    explainer = relprop.Explainer(model, "epsilon")
    arrays = {name: p.detach().double().numpy() for name, p in model.layer.named_parameters()}
    network = oracle.Recurrent.of("lstm", arrays)
    sequence, start = x[0].double().numpy(), np.zeros((steps, units))
    start[-1] = 1.0

    def messages() -> None:
        run = oracle.forward(network, sequence)
        oracle.relevance(network, run, oracle.Rule(1e-6), start)

    taken = medians({"relprop": lambda: explainer(x, 1), "messages": messages}, repeats)
    each = taken["relprop"] / batch
    print(
        f"lstm      {units:4d} units {steps:4d} steps batch {batch:4d}: {1e3 * each:.2f} ms a sequence, "
        f"message matrices {1e3 * taken['messages']:.1f} ms, {taken['messages'] / each:.0f} times as much"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cell", choices=CELLS, action="append")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for cell in options.cell or CELLS:
        for units, steps, batch in ((128, 200, 64), (128, 25, 256), (128, 100, 1)):
            against_gradient(cell, units, steps, batch, options.repeats)
    against_messages(60, 25, 256, options.repeats)
    against_messages(128, 200, 256, min(3, options.repeats))


if __name__ == "__main__":
    main()
