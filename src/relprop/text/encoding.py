"""What a tokenizer makes of a text: ids for the model, and which characters each of them stands for."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, fields

from relprop.errors import InvalidInput


@dataclass(frozen=True)
class Encoding:
    """One text as tokens; every field but `text` has one entry for each token.

    Raises InvalidInput where the fields do not fit each other or the text.

    Attributes:
        text: the text, as its reader sees it.
        ids: what the model is given.
        tokens: what each id stands for, as the tokenizer writes it.
        offsets: (start, end) of each token's characters in `text`; tokens may share characters, as Korean morphemes do.
        special: True for a token that stands for no part of the text: padding, [CLS], [SEP].
        unknown: True for a token that the vocabulary does not hold.
        words: the index of the word that a token belongs to; None for special tokens.
    """

    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    special: tuple[bool, ...]
    unknown: tuple[bool, ...]
    words: tuple[int | None, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise InvalidInput(f"Encoding: text is of type {type(self.text).__name__}, expected str")
        for each in fields(self)[1:]:
            object.__setattr__(self, each.name, _sequence(each.name, getattr(self, each.name)))
        object.__setattr__(self, "ids", tuple(_index("ids", place, id_) for place, id_ in enumerate(self.ids)))
        self._require_equal_lengths()
        object.__setattr__(self, "special", tuple(map(bool, self.special)))
        object.__setattr__(self, "unknown", tuple(map(bool, self.unknown)))
        object.__setattr__(self, "offsets", tuple(self._span(place) for place in range(len(self.ids))))
        object.__setattr__(self, "words", tuple(self._word(place) for place in range(len(self.ids))))

    def __len__(self) -> int:
        """The number of tokens."""
        return len(self.ids)

    def __add__(self, other: Encoding) -> Encoding:
        """The tokens of both; the other's text stands on a line of its own, below this one's."""
        text = "\n".join(each for each in (self.text, other.text) if each)
        shift = len(text) - len(other.text)
        first = max((word for word in self.words if word is not None), default=-1) + 1
        return Encoding(
            text,
            self.ids + other.ids,
            self.tokens + other.tokens,
            self.offsets + tuple((start + shift, end + shift) for start, end in other.offsets),
            self.special + other.special,
            self.unknown + other.unknown,
            self.words + tuple(None if word is None else word + first for word in other.words),
        )

    def _require_equal_lengths(self) -> None:
        sizes = {each.name: len(getattr(self, each.name)) for each in fields(self)[1:]}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{size} {name}" for name, size in sizes.items())
            raise InvalidInput(f"Encoding: every token needs one entry in each field, but there are {listed}")
        for place, token in enumerate(self.tokens):
            if not isinstance(token, str):
                raise InvalidInput(f"Encoding: tokens[{place}] is of type {type(token).__name__}, expected str")

    def _span(self, place: int) -> tuple[int, int]:
        """Where a token's characters start and end."""
        given = self.offsets[place]
        try:
            start, end = (operator.index(edge) for edge in given)
        except (TypeError, ValueError):
            raise InvalidInput(f"Encoding: offsets[{place}] is {given!r}, expected a pair (start, end)") from None
        if not 0 <= start <= end <= len(self.text):
            raise InvalidInput(
                f"Encoding: offsets[{place}] is {(start, end)}, for the token {self.tokens[place]!r}, but the text "
                f"has {len(self.text)} characters; offsets count characters (str indices), not bytes"
            )
        return start, end

    def _word(self, place: int) -> int | None:
        """The index of a token's word."""
        word = self.words[place]
        if self.special[place]:
            if word is not None:
                raise InvalidInput(
                    f"Encoding: the special token {self.tokens[place]!r} (place {place}) is said to belong to word "
                    f"{word}; its entry in words is None"
                )
            return None
        if word is None:
            raise InvalidInput(
                f"Encoding: the token {self.tokens[place]!r} (place {place}) belongs to no word; give the index of "
                "its word, or mark it as special"
            )
        return _index("words", place, word)


def _sequence(name: str, value: object) -> tuple[object, ...]:
    """A field's entries. Lists, arrays and tensors are read as tuples."""
    if isinstance(value, (str, bytes)):
        raise InvalidInput(f"Encoding: {name} is a {type(value).__name__}, expected one entry for each token")
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, Sequence):
        raise InvalidInput(f"Encoding: {name} is of type {type(value).__name__}, expected a tuple")
    return tuple(value)


def _index(name: str, place: int, value: object) -> int:
    """A whole number from 0. Raises InvalidInput for anything else."""
    try:
        index = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidInput(f"Encoding: {name}[{place}] is {value!r}, expected a whole number") from None
    if index < 0:
        raise InvalidInput(f"Encoding: {name}[{place}] is {index}; {name} start at 0")
    return index
