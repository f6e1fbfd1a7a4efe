"""Reviews cut into words and morphemes: for each its characters in the text, and its number in a vocabulary."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from relprop.errors import InvalidFile, InvalidInput, MissingExtra
from relprop.text.encoding import Encoding

PADDING, UNKNOWN = "<padding>", "<unknown>"
PADDING_ID, UNKNOWN_ID = 0, 1

_MARKS = "\u0300-\u036f"  # accents that follow their letter
_JOINED = rf"\u200d\S | [{_MARKS}\ufe0e\ufe0f\u20e3\U0001f3fb-\U0001f3ff]"  # to the emoji or letter before it
_ENGLISH = re.compile(
    rf"""
    (?P<skipped> <br\s*/?> | \s+ )
    | (?P<word>
        (?: [^\W\d_][{_MARKS}]* )+ (?: ['’´`]t\b )?      # film, don't
        | ['’´`](?: s|m|d|ll|re|ve )\b                   # the 's of it's
        | \d+(?: [./,]\d+ )*                             # 8, 7.5, 10/10
      )
    | (?P<sign>
        [\U0001f1e6-\U0001f1ff]{{2}}                     # a flag
        | (?P<mark> [.!?*~-] )(?P=mark)*                 # !, ...
        | \S (?: {_JOINED} )*
      )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_GAP = re.compile(r"<br\s*/?>|\s", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which kiwipiepy can't read
_APOSTROPHES = str.maketrans("’´`", "'''")
_REPEATED = re.compile(r"(.)\1{2,}", re.DOTALL)


class Piece(NamedTuple):
    """A word, morpheme or sign: how the vocabulary writes it, its characters in the text, the number of its word."""

    form: str
    start: int
    end: int
    word: int


Splitter = Callable[[str], list[Piece]]


class Tokenizer:
    """From a text to ids: `split` cuts it, `vocabulary` numbers the pieces (0 padding, 1 unknown)."""

    def __init__(self, split: Splitter, vocabulary: Sequence[str]) -> None:
        self.split = split
        self.vocabulary = tuple(vocabulary)
        self._ids = {form: id_ for id_, form in enumerate(self.vocabulary) if id_ > UNKNOWN_ID}

    def __call__(self, text: str) -> Encoding:
        """The tokens of a text, none left out and none added; raises `InvalidInput` for anything but a string."""
        if not isinstance(text, str):
            raise InvalidInput(f"expected a text but got {type(text).__name__}: tokenizer('a fine film')")
        pieces = self.split(text)
        ids = self.ids(piece.form for piece in pieces)
        return Encoding(
            text=text,
            ids=ids,
            tokens=tuple(piece.form for piece in pieces),
            offsets=tuple((piece.start, piece.end) for piece in pieces),
            special=(False,) * len(pieces),
            unknown=tuple(id_ == UNKNOWN_ID for id_ in ids),
            words=tuple(piece.word for piece in pieces),
        )

    def ids(self, forms: Iterable[str]) -> tuple[int, ...]:
        """The ids of pieces that have these forms."""
        return tuple(self._ids.get(form, UNKNOWN_ID) for form in forms)


def split_english(text: str) -> list[Piece]:
    """English text as words in lower case, numbers and signs; `<br />` is passed over.

    "Don't" is one piece, "it's" two ("it", "'s") of the same word; each sign is a word of its own.
    """
    pieces: list[Piece] = []
    end, word = -1, -1
    for match in _ENGLISH.finditer(text):
        if match["skipped"] is not None:
            continue
        form = match.group().translate(_APOSTROPHES)
        continues = form.startswith("'") and len(form) > 1 and match.start() == end and match["word"] is not None
        word += not continues
        end = match.end()
        pieces.append(Piece(_written(form.lower()), match.start(), end, word))
    return pieces


def split_korean(text: str) -> list[Piece]:
    """Korean text as morphemes of the words that spaces separate; `<br />` is passed over.

    Morphemes that are contracted share their characters: the syllable 봤 is both 보 and 었. One that left no trace
    in the writing (the copula in 영화다) gets the characters of the morpheme after it in its word, or else before it.
    A name of several words (샘 레이미) is one morpheme and makes them one word.

    Raises `MissingExtra` without kiwipiepy.
    """
    text = _GAP.sub(lambda match: " " * len(match.group()), _SURROGATE.sub("\ufffd", text))
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    found = [(str(m.form), int(m.start), int(m.start + m.len)) for m in _kiwi().tokenize(text)]
    spans = [(start, end) for _, start, end in found]
    pieces: list[Piece] = []
    word, reach = -1, -1  # the word, and the last of the written words that it takes up
    for index, (form, start, end) in enumerate(found):
        first, last = bisect_right(starts, start) - 1, bisect_left(starts, end) - 1
        word += first > reach
        reach = max(reach, first, last)
        if start == end:
            start, end = _neighbour(spans, index, starts)
        pieces.append(Piece(_written(form), start, end, word))
    return pieces


def read_vocabulary(path: Path, special: Sequence[str] = (PADDING, UNKNOWN)) -> tuple[str, ...]:
    """The forms in a vocabulary file, one a line, line n (from 0) being the id n, those of `special` the first.

    Raises `InvalidFile`.
    """
    try:
        forms = tuple(path.read_text(encoding="utf-8").split("\n")[:-1])
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFile(
            f"the vocabulary {path} can't be read ({error}): check the path; if it is the zoo's own, reinstall relprop"
        ) from error
    if forms[: len(special)] != tuple(special):
        raise InvalidFile(f"{path} is not the vocabulary expected: its first lines are not {', '.join(special)}")
    return forms


def write_vocabulary(path: Path, forms: Sequence[str]) -> None:
    """Write a vocabulary where `read_vocabulary` finds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{form}\n" for form in forms), encoding="utf-8", newline="\n")


def make_vocabulary(texts: Iterable[Iterable[str]], size: int) -> tuple[str, ...]:
    """Padding, unknown, and the `size` most frequent forms, those equally frequent in alphabetical order."""
    counts = Counter(form for forms in texts for form in forms if form.isprintable())
    ranked = sorted(counts, key=lambda form: (-counts[form], form))
    return (PADDING, UNKNOWN, *ranked[:size])


def _neighbour(spans: Sequence[tuple[int, int]], index: int, starts: Sequence[int]) -> tuple[int, int]:
    """The characters of the morpheme beside one that has none: after it in the same written word, or else before it."""
    here = bisect_right(starts, spans[index][0])
    for span in (*spans[index + 1 :], *spans[index - 1 :: -1][:index]):
        if span[0] < span[1] and bisect_right(starts, span[0]) == here:
            return span
    return spans[index]


def _written(form: str) -> str:
    """How the vocabulary writes a form: composed letters, no character more than twice in a row (ㅋㅋㅋㅋ as ㅋㅋ)."""
    return _REPEATED.sub(r"\1\1", unicodedata.normalize("NFC", form))


@cache
def _kiwi() -> Any:
    try:
        return import_module("kiwipiepy").Kiwi(num_workers=1)
    except ImportError as error:
        raise MissingExtra(
            f"the package kiwipiepy is needed to read Korean and can't be imported ({error}): "
            'pip install "relprop[korean]"'
        ) from error
