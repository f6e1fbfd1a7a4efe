"""Word deletion from reviews that the zoo's classifiers were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from relprop import zoo
from relprop.errors import InvalidInput
from relprop.evaluate.deletion import Deletion, WordDeletion, word_deletion
from relprop.evaluate.explanations import explainers
from relprop.progress import Progress
from relprop.text.encoding import Encoding
from relprop.zoo.networks import ReviewTransformer
from relprop.zoo.review_data import Review, read_english, read_korean
from relprop.zoo.words import UNKNOWN_ID


def delete_from_reviews(
    name: str,
    data: Path,
    explanations: Sequence[str],
    *,
    sentences: bool = False,
    max_deletions: int = 10,
    deletion: Deletion = "zero",
    most: int | None = None,
    random_orders: int = 10,
    seed: int = 0,
    progress: bool | Progress | None = None,
) -> WordDeletion:
    """`word_deletion` of a zoo model that reads reviews, on the reviews of `data` held out.

    A recurrent model's word is a token; a Transformer's is a written word, of however many pieces, and of a review that
    is too long for it the first tokens are read.

    data: the whole table of reviews for English, of which the models' training left 5,000 out, and 1,000 sentences; the
        table of test reviews for Korean. sentences: the sentences instead. explanations: "lrp", methods, presets.
        Raises InvalidFile, InvalidInput, MissingExtra.
    """
    entry = zoo.text_entry(name)
    model = zoo.load(name)
    reviews = held_out(entry.language, data, sentences)
    encodings = [entry.tokenizer(review.text) for review in reviews]
    longest = model.places.num_embeddings if isinstance(model, ReviewTransformer) else None
    return word_deletion(
        model,
        [torch.tensor(encoding.ids[:longest] or (UNKNOWN_ID,)) for encoding in encodings],
        [review.label for review in reviews],
        explainers(model, explanations),
        max_deletions=max_deletions,
        deletion=deletion,
        words=[written_words(encoding)[:longest] for encoding in encodings] if longest else None,
        most=most,
        random_orders=random_orders,
        seed=seed,
        progress=progress,
    )


def written_words(encoding: Encoding) -> torch.Tensor:
    """(tokens,): the word that each token belongs to, -1 for special ones, which are not deleted."""
    return torch.tensor([-1 if word is None else word for word in encoding.words])


def held_out(language: str, data: Path, sentences: bool = False) -> list[Review]:
    """The reviews that were kept for measuring, or the English sentences. Raises InvalidInput."""
    if language != "en" and sentences:
        raise InvalidInput("there are no Korean sentences beside the reviews: leave --sentences away")
    if language != "en":
        return read_korean(data, data).test
    division = read_english(data)
    return division.sentences if sentences else division.test
