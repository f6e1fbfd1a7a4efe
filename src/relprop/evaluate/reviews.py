"""Word deletion from reviews that the zoo's classifiers were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from relprop import zoo
from relprop.evaluate.deletion import Deletion, WordDeletion, word_deletion
from relprop.evaluate.explanations import Progress, explainers
from relprop.zoo.review_data import Review, read_english, read_korean
from relprop.zoo.sentiment import tokenizer
from relprop.zoo.words import UNKNOWN_ID


def delete_from_reviews(
    name: str,
    data: Path,
    explanations: Sequence[str],
    *,
    max_deletions: int = 10,
    deletion: Deletion = "zero",
    most: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> WordDeletion:
    """`word_deletion` of the zoo's model `name`, "reviews-en" or "reviews-ko", on the reviews of `data` held out.

    data: the whole table of reviews for English, of which the model's training left 5,000 out; the table of test
        reviews for Korean. explanations: "lrp", methods, presets. Raises InvalidFile, InvalidInput, MissingExtra.
    """
    entry = zoo.text_entry(name)
    model = zoo.load(name)
    encode = tokenizer(name, entry.language)
    reviews = held_out(entry.language, data)
    ids = [torch.tensor(encode.ids(review.forms) or (UNKNOWN_ID,)) for review in reviews]
    return word_deletion(
        model,
        ids,
        [review.label for review in reviews],
        explainers(model, explanations),
        max_deletions=max_deletions,
        deletion=deletion,
        most=most,
        seed=seed,
        progress=progress,
    )


def held_out(language: str, data: Path) -> list[Review]:
    """The reviews that were kept for measuring."""
    return read_english(data).test if language == "en" else read_korean(data, data).test
