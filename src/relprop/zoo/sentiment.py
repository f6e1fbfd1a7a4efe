"""Movie reviews, English and Korean: the classifiers of their sentiment, and sentences to try them on."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from torch import nn

from relprop.text.encoding import Encoding
from relprop.zoo import storage
from relprop.zoo.entries import TextEntry
from relprop.zoo.networks import SENTIMENTS, ReviewLSTM, ReviewTransformer
from relprop.zoo.wordpiece import SPECIAL, WordPieces
from relprop.zoo.words import Splitter, Tokenizer, read_vocabulary, split_english, split_korean

TRANSFORMER = "reviews-en-transformer"
SPLITTERS: dict[str, Splitter] = {"en": split_english, "ko": split_korean}


def reviews() -> list[tuple[str, str]]:
    """Sentences of movie reviews to try the classifiers on, as (language, text); written for relprop."""
    return [(language, text) for language, texts in _REVIEWS.items() for text in texts]


def network(vocabulary: int) -> ReviewLSTM:
    """The network of both classifiers, for so many ids, with weights yet to be trained."""
    return ReviewLSTM(vocabulary, hidden=64)


@cache
def tokenizer(name: str, language: str) -> Tokenizer:
    """The tokenizer of the zoo's model `name`; raises `InvalidFile` where its vocabulary is damaged."""
    return Tokenizer(SPLITTERS[language], read_vocabulary(storage.vocabulary(name)))


@cache
def word_pieces(weights: Path) -> WordPieces:
    """The tokenizer of a Transformer, its vocabulary beside its weights; raises `InvalidFile` where it is damaged."""
    return WordPieces(read_vocabulary(weights.with_suffix(".txt"), SPECIAL))


def restore_transformer(weights: Path) -> tuple[ReviewTransformer, WordPieces]:
    """The Transformer with these weights, in eval mode, and its tokenizer; raises `InvalidFile`."""
    tokenizer = word_pieces(weights)
    model = ReviewTransformer(len(tokenizer.vocabulary))
    storage.restore(model, weights)
    return model.eval(), tokenizer


def _entry(language: str, summary: str, extra: str | None = None, requires: tuple[str, ...] = ()) -> TextEntry:
    name = f"reviews-{language}"

    def build() -> nn.Module:
        model = network(len(tokenizer(name, language).vocabulary))
        storage.restore(model, storage.shipped(name))
        return model.eval()

    def encode(text: str) -> Encoding:
        return tokenizer(name, language)(text)

    return TextEntry(
        name=name,
        summary=summary,
        language=language,
        tokenizer=encode,
        build=build,
        read_labels=lambda: SENTIMENTS,
        extra=extra,
        requires=requires,
    )


_REVIEWS = {
    "en": (
        "A warm, funny film with wonderful actors; I laughed and cried and would watch it again tomorrow.",
        "The plot makes no sense, the jokes are stale, and two hours have never felt so long.",
        "Beautiful pictures and a fine score, but the story is dull and I did not care about anyone in it.",
        "Not bad at all! I expected nothing and was surprised by how clever and touching it is.",
        "Don't believe the posters: this is not the masterpiece they promise, just a boring remake.",
    ),
    "ko": (
        "배우들 연기가 정말 훌륭하고 마지막 장면에서 눈물이 났어요. 꼭 보세요!",
        "이 영화 진짜 재미없다. 두 시간 내내 졸았고 돈이 아깝다.",
        "영상미는 좋은데 스토리가 너무 뻔해서 지루했어요 ㅠㅠ",
        "기대 안 했는데 생각보다 지루하지 않고 재밌었어요 ㅋㅋㅋㅋ",
        "감동적이라더니 하나도 감동적이지 않았다. 추천하고 싶지 않음.",
    ),
}

ENTRIES = (
    _entry("en", "sentiment of English movie reviews, word by word, bidirectional LSTM (IMDB, Rotten Tomatoes)"),
    _entry(
        "ko",
        "sentiment of Korean movie reviews, morpheme by morpheme, bidirectional LSTM (NSMC)",
        extra="korean",
        requires=("kiwipiepy",),
    ),
    TextEntry(
        name=TRANSFORMER,
        summary="sentiment of English movie reviews, by word pieces, Transformer of six layers (fine-tuned MiniLM)",
        language="en",
        tokenizer=lambda text: word_pieces(storage.shipped(TRANSFORMER))(text),
        build=lambda: restore_transformer(storage.shipped(TRANSFORMER))[0],
        read_labels=lambda: SENTIMENTS,
    ),
)
