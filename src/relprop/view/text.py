"""What is shown of an explained text, whatever it is drawn with: painted words, their scale, the legend in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from relprop.errors import NonFinite
from relprop.view.colours import RGB, colour_map
from relprop.view.legend import number

_FULL = 0.8  # where on the colour map full colour is taken: saturated, yet not almost black
POSITIVE: RGB = colour_map("RdBu_r").colour(_FULL)
NEGATIVE: RGB = colour_map("RdBu_r").colour(-_FULL)
PAPER: RGB = (255, 255, 255)
INK: RGB = (0, 0, 0)

LEAST_MARKED = 0.05  # words of a lesser share get no mark of their sign, so that the marks stay rare


class Shown(NamedTuple):
    """A word, text[start:end], or a token that stands for nothing in the text, and its relevance.

    `parts` are the tokens of a word that has several, (token, relevance) each.
    """

    text: str
    start: int
    end: int
    relevance: float
    unknown: bool = False
    parts: tuple[tuple[str, float], ...] = ()


class Piece(NamedTuple):
    """A stretch of the text: a word with its relevance / limit, or what stands between words, with `word` None."""

    text: str
    word: Shown | None = None
    share: float = 0.0


@dataclass(frozen=True, eq=False)
class Passage:
    """A text and what is shown with it; `words` are in the order of the text and don't overlap.

    `apart` are tokens that stand for no character of it; `claim` is what positive relevance speaks for, if `has_sign`;
    `source` is where the text is from, if that is to be told.
    Raises NonFinite for relevance that has no colour.
    """

    text: str
    words: Sequence[Shown]
    apart: Sequence[Shown]
    claim: str
    score: float
    method: str
    rules: str
    has_sign: bool = True
    notes: Sequence[str] = ()
    source: str = ""

    def __post_init__(self) -> None:
        if not all(abs(each.relevance) < float("inf") for each in (*self.words, *self.apart)):
            raise NonFinite("the relevance of the words holds NaN or infinity, so there is no picture of it")

    @cached_property
    def limit(self) -> float:
        """The |relevance| of full colour: the largest of the words'; special tokens never pale the text."""
        return max((abs(word.relevance) for word in self.words), default=0.0)

    @property
    def pieces(self) -> Iterator[Piece]:
        """The whole text in order, words and what stands between them."""
        place = 0
        for word in self.words:
            if word.start > place:
                yield Piece(self.text[place : word.start])
            yield Piece(self.text[word.start : word.end], word, self.share(word))
            place = word.end
        if place < len(self.text):
            yield Piece(self.text[place:])

    @property
    def strongest(self) -> list[Shown]:
        """The words in order of |relevance|, the largest first."""
        return sorted(self.words, key=lambda word: -abs(word.relevance))

    @property
    def total(self) -> float:
        """The sum of relevance, that of the tokens apart included."""
        return sum(each.relevance for each in (*self.words, *self.apart))

    @property
    def heading(self) -> str:
        """What was explained, by what."""
        source = f"{self.source}: " if self.source else ""
        return f"{source}{self.claim}: {number(self.score)} ({self.how})"

    @property
    def how(self) -> str:
        """The method with its rules or options."""
        if self.rules.startswith(self.method):
            return self.rules
        return f"{self.method}, {self.rules}" if self.rules else self.method

    @property
    def facts(self) -> list[tuple[str, str]]:
        """(label, value) pairs that every picture of it says."""
        apart = sum(each.relevance for each in self.apart)
        facts = [("explained", self.claim), ("score", number(self.score)), ("sum of relevance", number(self.total))]
        if self.apart:
            facts.append(("of it, tokens apart from the text", number(apart)))
        facts.append(("computed by", self.how))
        return facts + [("note", note) for note in self.notes]

    @property
    def summary(self) -> str:
        """The figures in one line."""
        said = f"score {number(self.score)}, sum of relevance {number(self.total)}"
        if self.apart:
            said += f", of it {number(sum(each.relevance for each in self.apart))} in tokens apart from the text"
        return said

    @property
    def scale(self) -> str:
        """What full colour stands for."""
        if self.limit == 0:
            return "No word has any relevance."
        return f"Full colour: a relevance of {self.limit:.4g}, the largest of these words."

    @property
    def has_unknown(self) -> bool:
        """Whether a word is not in the vocabulary."""
        return any(word.unknown for word in self.words)

    def share(self, shown: Shown) -> float:
        """The relevance in units of the limit, from -1 to 1."""
        return max(-1.0, min(1.0, shown.relevance / self.limit)) if self.limit > 0 else 0.0

    def meaning(self, sign: int) -> str:
        """What the colour of relevance of this sign says."""
        if not self.has_sign:
            return f"the score of {self.claim} reacts to the word, in either direction"
        return f"evidence {'for' if sign > 0 else 'against'} {self.claim}"

    @property
    def signs(self) -> tuple[int, ...]:
        """The signs that relevance can have."""
        return (1, -1) if self.has_sign else (1,)


def marked(share: float) -> int:
    """The sign that a word is marked with: 1, -1, or 0 for none."""
    return 0 if abs(share) < LEAST_MARKED else 1 if share > 0 else -1


def painted(share: float) -> RGB:
    """The colour of a word on white paper."""
    full = POSITIVE if share > 0 else NEGATIVE
    red, green, blue = (round(p + abs(share) * (f - p)) for p, f in zip(PAPER, full, strict=True))
    return red, green, blue


def takes_white(share: float) -> bool:
    """Whether white letters are easier to read on this colour than black ones (WCAG 2, relative luminance)."""
    light = luminance(painted(share)) + 0.05
    return 1.05 / light > light / 0.05


def luminance(colour: RGB) -> float:
    """The relative luminance of an sRGB colour, 0 for black to 1 for white (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def said(word: Shown) -> str:
    """A word's value, with those of its parts, for those who point at it."""
    parts = f" = {listed(word.parts)}" if word.parts else ""
    return f"{word.text}: {number(word.relevance)}{parts}{', not in the vocabulary' if word.unknown else ''}"


def listed(parts: Sequence[tuple[str, float]]) -> str:
    """The tokens of a word with their relevance."""
    return ", ".join(f"{token} {number(relevance)}" for token, relevance in parts)
