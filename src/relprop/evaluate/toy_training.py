"""Training for the toy task: many starts at once, by Levenberg and Marquardt's method."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from relprop.errors import RelpropError
from relprop.evaluate.toy import LONGEST, TASKS, TEST_SEQUENCES, Calculator, Sequences, error, sequences
from relprop.progress import Progress, telling

CONVERGED = 1e-4  # mean squared error on sequences that were not trained on
STARTS = 64
MOST_ROUNDS = 20
ITERATIONS = 200
TRAINING_SEQUENCES = 400

# One network is a row of 18 parameters: the weights of each input by gate (i, f, g, o), those of h, the two biases as
# one, the head's weight and bias.
INPUT, HIDDEN, BIAS, HEAD, HEAD_BIAS = slice(0, 8), slice(8, 12), slice(12, 16), 16, 17
SIZE = 18
CANDIDATE_BIAS = 14
CONSTANTS = (CANDIDATE_BIAS, HEAD_BIAS)


def train(
    task: str,
    count: int = 10,
    *,
    converged: float = CONVERGED,
    biases: bool = False,
    signed: bool = False,
    seed: int = 0,
    progress: bool | Progress | None = None,
) -> list[nn.Module]:
    """The first `count` networks of this task, "addition" or "subtraction", that converge.

    From each start, drawn as nn.LSTM draws it, a network is trained until its mean squared error is below half of
    `converged`, and taken if it is below `converged` on 2,500 other sequences too. Deterministic given the seed.

    biases: give the candidate and the head a bias. signed: distractors of both signs. progress: True for a
    bar, or a function of (networks converged, count).
    Raises RelpropError where too few converge.
    """
    chance = torch.Generator().manual_seed(seed)
    free = torch.ones(SIZE, dtype=torch.float64)
    if not biases:
        free[list(CONSTANTS)] = 0
    found: list[nn.Module] = []
    least = math.inf
    with telling(progress, f"training, {task}") as tell:
        for _ in range(MOST_ROUNDS):
            data, held_out = (sequences(size, chance, signed) for size in (TRAINING_SEQUENCES, TEST_SEQUENCES))
            starts = free * (2 * torch.rand(STARTS, SIZE, generator=chance, dtype=torch.float64) - 1)
            fitted, errors = fit(starts, free, data, TASKS[task], converged / 2)
            least = min(least, float(errors.min()))
            for row in fitted[errors < converged / 2]:
                model = as_module(row, biases)
                if len(found) < count and error(model, held_out, TASKS[task]) < converged:
                    found.append(model)
            tell(len(found), count)
            if len(found) == count:
                return found
    raise RelpropError(
        f"only {len(found)} of {count} networks learned {task} to an error below {converged:g} from "
        f"{MOST_ROUNDS * STARTS} starts; the smallest error met in training was {least:.2g}. Ask for fewer, or for a "
        "larger error"
    )


def fit(parameters: Tensor, free: Tensor, data: Sequences, sign: float, enough: float) -> tuple[Tensor, Tensor]:
    """Each network, a row of (networks, 18) parameters, trained until its error is below `enough`; and the errors.

    free: (18,), 1 for the parameters that are trained, 0 for those that stay.
    """
    parameters, results = parameters.clone(), data.results(sign)
    errors = (outputs(parameters, data) - results).square().mean(1)
    damping = torch.full_like(errors, 1e-2)
    for _ in range(ITERATIONS):
        open_ = (errors >= enough).nonzero()[:, 0]
        if len(open_) == 0:
            break
        residuals, jacobian = _linearised(parameters[open_], data, results)
        jacobian = jacobian * free
        curvature = jacobian.mT @ jacobian / len(results) + damping[open_, None, None] * torch.eye(SIZE).double()
        gradient = (jacobian.mT @ residuals[:, :, None])[:, :, 0] / len(results)
        stepped = parameters[open_] - torch.linalg.solve(curvature, gradient)
        after = (outputs(stepped, data) - results).square().mean(1)
        better = after < errors[open_]
        parameters[open_] = torch.where(better[:, None], stepped, parameters[open_])
        errors[open_] = torch.where(better, after, errors[open_])
        damping[open_] = (damping[open_] * torch.where(better, 1 / 3, 4.0).double()).clamp(1e-10, 1e6)
    return parameters, errors


def outputs(parameters: Tensor, data: Sequences) -> Tensor:
    """(networks, sequences): what each network says of each sequence.

    parameters: (networks, 18), or (networks, sequences, 18) for parameters of each sequence's own.
    """
    rows = parameters if parameters.dim() == 3 else parameters[:, None]
    w, u, b = torch.unflatten(rows[..., INPUT], -1, (2, 4)), rows[..., HIDDEN], rows[..., BIAS]
    h = c = last = torch.zeros(len(rows), len(data.x), dtype=torch.float64)
    for t in range(LONGEST):
        x = data.x[:, t]
        z = w[..., 0, :] * x[:, :1] + w[..., 1, :] * x[:, 1:] + u * h[..., None] + b
        i, f, o = torch.sigmoid(z[..., [0, 1, 3]]).unbind(-1)
        c = f * c + i * torch.tanh(z[..., 2])
        h = o * torch.tanh(c)
        last = torch.where(data.lengths == t + 1, h, last)
    return rows[..., HEAD] * last + rows[..., HEAD_BIAS]


def as_module(parameters: Tensor, biases: bool = False) -> nn.Module:
    """The network of a row of parameters, as an ordinary nn.LSTM and nn.Linear."""
    model = Calculator(biases)
    weights = {
        "lstm.weight_ih_l0": parameters[INPUT].reshape(2, 4).T,
        "lstm.weight_hh_l0": parameters[HIDDEN, None],
        "lstm.bias_ih_l0": parameters[BIAS],
        "lstm.bias_hh_l0": torch.zeros(4),
        "head.weight": parameters[HEAD].reshape(1, 1),
    }
    if biases:
        weights["head.bias"] = parameters[HEAD_BIAS].reshape(1)
    model.load_state_dict(weights)
    return model.eval()


def _linearised(parameters: Tensor, data: Sequences, results: Tensor) -> tuple[Tensor, Tensor]:
    """(networks, sequences) residuals, and (networks, sequences, 18) their derivatives by the parameters.

    With parameters of its own for each sequence, one backward pass gives the derivatives of all.
    """
    each = parameters[:, None].expand(-1, len(results), -1).clone().requires_grad_()
    said = outputs(each, data)
    (jacobian,) = torch.autograd.grad(said.sum(), each)
    return (said - results).detach(), jacobian
