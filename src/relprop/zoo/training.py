"""What the zoo's training programs share: options, the descent, batches of reviews, figures, and how a run ends."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from relprop.errors import InvalidInput, RelpropError
from relprop.zoo.networks import SENTIMENTS

Epochs = Annotated[int, typer.Option(min=0, help="Passes over the training data; 0: the model's own.")]
Seed = Annotated[int, typer.Option(help="Seed of everything that is left to chance.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads torch may use; they change the last bits.")]
Out = Annotated[
    Path | None,
    typer.Option(help="The .safetensors file to write; the figures go beside it (.json), and the vocabulary (.txt)."),
]
Evaluate = Annotated[
    bool, typer.Option("--evaluate", help="Train nothing: measure --out, or else the weights relprop ships.")
]


class Encoded(NamedTuple):
    """A review as a network reads it."""

    ids: Tensor  # (tokens,), int64
    label: int


def run(threads: int, work: Callable[[], dict[str, Any]]) -> None:
    """Do the work with so many threads and print its figures; a mistake of the user is said without a traceback."""
    torch.set_num_threads(threads)
    try:
        figures = work()
    except RelpropError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(json.dumps(figures, indent=2))


def required(out: Path | None) -> Path:
    """The file to write; raises `InvalidInput` where none is named."""
    if out is None:
        raise InvalidInput("--out is missing: name the .safetensors file to write, or give --evaluate to train nothing")
    return out


def write_figures(out: Path, figures: dict[str, Any], *, epochs: int, seed: int, threads: int) -> dict[str, Any]:
    """Write the figures beside the weights `out`, with the settings of the run; returns them all."""
    figures = figures | {"epochs": epochs, "seed": seed, "threads": threads, "torch": torch.__version__}
    out.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def cosine(progress: float, warmup: float) -> float:
    """The share of the learning rate at this progress (0 to 1): up along a line, then down along a cosine."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


class Descent:
    """The steps of an optimizer along `cosine`, `done` of them so far; `average` follows the model's weights.

    averaging: how much of the average stays, per step. clip: the norm of the gradient, at most; None for any.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        steps: int,
        warmup: float,
        averaging: float,
        clip: float | None = None,
    ) -> None:
        self.model, self.average, self.done = model, copy.deepcopy(model), 0
        self._optimizer, self._averaging, self._clip = optimizer, averaging, clip
        self._schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step / steps, warmup))

    def step(self, loss: Tensor) -> None:
        """Move the weights against the gradient of `loss`, and the average towards the weights."""
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self._optimizer.step()
        self._schedule.step()
        self.done += 1
        with torch.no_grad():
            for mean, current in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(current, 1 - self._averaging)


def batches(reviews: Sequence[Encoded], size: int, window: int, chance: random.Random) -> list[list[Encoded]]:
    """The reviews in a new order, in batches of about the same length once cut to `window`: little is padded."""
    shuffled, made = list(reviews), []
    chance.shuffle(shuffled)
    for first in range(0, len(shuffled), 50 * size):
        near = sorted(shuffled[first : first + 50 * size], key=lambda each: min(len(each.ids), window))
        made += [near[place : place + size] for place in range(0, len(near), size)]
    chance.shuffle(made)
    return made


def collate(batch: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    """Ids (batch, tokens), filled up with 0, and labels (batch,)."""
    return pad_sequence([each.ids for each in batch], batch_first=True), torch.tensor([each.label for each in batch])


@torch.no_grad()
def judge(model: nn.Module, reviews: Sequence[Encoded]) -> tuple[float, list[list[int]]]:
    """The mean cross entropy, and how many reviews of each class (row) were taken for each class (column)."""
    model.eval()
    total, confusion = 0.0, [[0, 0], [0, 0]]
    near = sorted(reviews, key=lambda each: len(each.ids))
    for first in range(0, len(near), 100):
        ids, labels = collate(near[first : first + 100])
        scores = model(ids)
        total += float(F.cross_entropy(scores, labels, reduction="sum"))
        for label, answer in zip(labels.tolist(), scores.argmax(1).tolist(), strict=True):
            confusion[label][answer] += 1
    return total / len(reviews), confusion


def accuracy(confusion: list[list[int]]) -> float:
    """The share of the diagonal, in percent."""
    return 100 * sum(confusion[c][c] for c in (0, 1)) / sum(map(sum, confusion))


def review_figures(
    name: str, model: nn.Module, test: Sequence[Encoded], sentences: Sequence[Encoded]
) -> dict[str, Any]:
    """What a classifier of reviews gets right of those held out; the sentences may be none."""
    _, confusion = judge(model, test)
    errors = confusion[0][1] + confusion[1][0]
    figures = {
        "model": name,
        "test_reviews": len(test),
        "test_errors": errors,
        "test_error_percent": round(100 * errors / len(test), 2),
        "test_accuracy_percent": round(accuracy(confusion), 2),
        **{
            f"test_accuracy_percent_{label}": round(100 * row[index] / sum(row), 2)
            for index, (label, row) in enumerate(zip(SENTIMENTS, confusion, strict=True))
        },
        "test_confusion": confusion,
    }
    if sentences:
        figures["sentences"] = len(sentences)
        figures["sentences_accuracy_percent"] = round(accuracy(judge(model, sentences)[1]), 2)
    return figures | {"parameters": sum(parameter.numel() for parameter in model.parameters())}
