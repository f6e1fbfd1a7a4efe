"""Word pieces as BERT cuts them: text in lower case, without accents, each word in the longest pieces there are."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from relprop.errors import InvalidInput
from relprop.text.encoding import Encoding

PADDING, UNKNOWN, START, END = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
UNKNOWN_ID, START_ID, END_ID = 1, 2, 3
CONTINUES = "##"  # before a piece that is not the first of its word
LONGEST_WORD = 100  # characters; a longer one is unknown

_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_JOINT = re.compile(r"(?<=[^\W_])['’](?=[^\W_])")  # within "don't"
_CONTROLS = ("Cc", "Cf", "Co", "Cs")
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class Word(NamedTuple):
    """What pieces are cut from: letters without a sign among them, or a single sign; as BERT writes it.

    `places` says where in the text each of its characters is from; `number` counts written words: "don't" is one,
    although three of these ("don", "'", "t").
    """

    form: str
    places: tuple[int, ...]
    number: int


class WordPieces:
    """From a text to ids: BERT's uncased WordPiece over a vocabulary whose first ids are those of `SPECIAL`."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.vocabulary = tuple(vocabulary)
        self._ids = {piece: id_ for id_, piece in enumerate(self.vocabulary) if id_ >= len(SPECIAL)}

    def __call__(self, text: str) -> Encoding:
        """The tokens of a text between [CLS] and [SEP], none left out; raises `InvalidInput` for anything but a str."""
        if not isinstance(text, str):
            raise InvalidInput(f"expected a text but got {type(text).__name__}: tokenizer('a fine film')")
        found: list[tuple[int, tuple[int, int], int | None]] = [(START_ID, (0, 0), None)]
        for word in split(text):
            start = 0
            for id_, end in self._cut(word.form):
                found.append((id_, (word.places[start], word.places[end - 1] + 1), word.number))
                start = end
        found.append((END_ID, (len(text), len(text)), None))
        ids, offsets, numbers = zip(*found, strict=True)
        return Encoding(
            text=text,
            ids=ids,
            tokens=tuple(self.vocabulary[id_] for id_ in ids),
            offsets=offsets,
            special=tuple(number is None for number in numbers),
            unknown=tuple(id_ == UNKNOWN_ID for id_ in ids),
            words=numbers,
        )

    def _cut(self, form: str) -> list[tuple[int, int]]:
        """The pieces of a word, each the longest that the vocabulary has: (id, where it ends); or one unknown."""
        pieces: list[tuple[int, int]] = []
        start = 0
        while start < len(form) <= LONGEST_WORD:
            mark = CONTINUES if start else ""
            ends = range(len(form), start, -1)
            end = next((end for end in ends if mark + form[start:end] in self._ids), None)
            if end is None:
                break
            pieces.append((self._ids[mark + form[start:end]], end))
            start = end
        return pieces if start == len(form) else [(UNKNOWN_ID, len(form))]


def split(text: str) -> list[Word]:
    """Words and signs of a text, as BERT's uncased tokenizer; `<br />` is passed over as a space is."""
    joints = {match.start() for match in _JOINT.finditer(text)}
    words: list[Word] = []
    number = -1
    for group in _groups(_normalised(text)):
        first = group[0][1]
        number += not (first in joints or first - 1 in joints)
        words.append(Word("".join(letter for letter, _ in group), tuple(place for _, place in group), number))
    return words


def _groups(letters: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    """Letters between spaces together, each sign by itself."""
    group: list[tuple[str, int]] = []
    for letter, place in letters:
        apart = _is_sign(letter)
        if group and (apart or letter == " "):
            yield group
            group = []
        if apart:
            yield [(letter, place)]
        elif letter != " ":
            group.append((letter, place))
    if group:
        yield group


def _normalised(text: str) -> Iterator[tuple[str, int]]:
    """The text as BERT reads it, each letter with the place that it is from."""
    for place, character in enumerate(_LINE_BREAK.sub(lambda match: " " * len(match.group()), text)):
        for letter in _letters(character):
            yield letter, place


@lru_cache(maxsize=4096)
def _letters(character: str) -> str:
    """A character as BERT reads it: in lower case, without accents; a space for any space, nothing for a control."""
    if character in "\t\n\r":
        return " "
    if character == "\ufffd" or unicodedata.category(character) in _CONTROLS:
        return ""
    if character.isspace():
        return " "
    bare = (each for each in unicodedata.normalize("NFD", character) if unicodedata.category(each) != "Mn")
    letters = "".join(each.lower() for each in bare)
    ideograph = any(first <= ord(character) <= last for first, last in _IDEOGRAPHS)
    return f" {letters} " if ideograph else letters  # each a word of its own


@lru_cache(maxsize=4096)
def _is_sign(letter: str) -> bool:
    return letter in string.punctuation or unicodedata.category(letter).startswith("P")
