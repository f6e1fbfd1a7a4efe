"""Whatever a tokenizer returns, read as an Encoding."""

from __future__ import annotations

import operator
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from relprop.errors import InvalidInput
from relprop.text.encoding import Encoding

Tokenizer = Any  # a function from a text to its tokens, or an object of transformers or tokenizers

# How tokenizers write "goes on within a word" and "starts a word", which the text does not hold.
_MARKS = ("##", "\u2581", "\u0120", "</w>")

_EXPECTED = (
    "expected relprop.text.Encoding, what a fast Hugging Face tokenizer returns, a dict with 'ids', 'tokens' and "
    "'offsets', or a tuple (ids, tokens, offsets)"
)


@dataclass(frozen=True)
class Tokenized:
    """An encoding, and what else a tokenizer says of each token; None where it says nothing.

    Attributes:
        attention_mask: 1 for what the model may look at, 0 for the rest.
        token_type_ids: the kind of a token, as BERT tells two texts apart.
        segments: 0 for tokens of the first text, 1 for those of the second, None for special tokens.
        cut: whether tokens were left out at the end, as there were too many.
    """

    encoding: Encoding
    attention_mask: tuple[int, ...] | None = None
    token_type_ids: tuple[int, ...] | None = None
    segments: tuple[int | None, ...] | None = None
    cut: bool = False


@dataclass(frozen=True)
class _Fields:
    """What was found in a tokenizer's answer; None for what it does not say."""

    ids: Sequence[int]
    tokens: Sequence[str]
    offsets: Sequence[tuple[int, int]] | None = None
    special: Sequence[bool] | None = None
    unknown: Sequence[bool] | None = None
    words: Sequence[int | None] | None = None
    attention_mask: Sequence[int] | None = None
    token_type_ids: Sequence[int] | None = None
    segments: Sequence[int | None] | None = None


def tokenize(tokenizer: Tokenizer, text: str, second: str | None = None, **options: Any) -> Tokenized:
    """`text` as `tokenizer` splits it, followed by a second text on a line of its own if there is one.

    tokenizer: a function from a text to an Encoding, to a dict or a tuple of its fields, or to what Hugging Face
        tokenizers return; a fast tokenizer of transformers; a `tokenizers.Tokenizer`.
    second, options: for a tokenizer of transformers, which is called with them.

    Raises InvalidInput for a text without any token, and for answers that can't be read.
    """
    for each in (text,) if second is None else (text, second):
        if not isinstance(each, str):
            raise InvalidInput(
                f"got a {type(each).__name__} as text, expected a str, or a list of them for several texts"
            )
        if not each:
            raise InvalidInput("the text is empty: there is no word to explain")
        _require_characters(each)
    answer = _called(tokenizer, text, second, options)
    found = _fields(answer)
    if second is not None:
        found, text = _one_below_the_other(found, len(text) + 1), f"{text}\n{second}"
    made = _read(found, text, _unknown_id(tokenizer)) if isinstance(found, _Fields) else Tokenized(found)
    made = replace(made, cut=_is_cut(answer))
    if made.encoding.text != text:
        raise InvalidInput(
            f"the tokenizer's encoding is of another text, {_short(made.encoding.text)} instead of {_short(text)}; "
            "offsets must point into the text as it was given"
        )
    if len(made.encoding) == 0:
        raise InvalidInput(f"the tokenizer found no token in {_short(text)}: there is no word to explain")
    return made


def words_in(text: str, offsets: Sequence[tuple[int, int]], special: Sequence[bool]) -> tuple[int | None, ...]:
    """The index of each token's word, where words end at spaces and punctuation; tokens must be in reading order."""
    units = _units(text)
    words: list[int | None] = []
    word, last = -1, -1
    for (start, end), apart in zip(offsets, special, strict=True):
        if apart:
            words.append(None)
            continue
        covered = [unit for unit in units[start:end] if unit >= 0]
        if not covered or covered[0] != last:
            word += 1
        last = covered[-1] if covered else -1
        words.append(word)
    return tuple(words)


def _require_characters(text: str) -> None:
    """InvalidInput for a text with half a character, as arises from bytes that were read in a wrong encoding."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"character {error.start} of the text is U+{ord(text[error.start]):04X}, half of a character; read the "
            'text as what it is written in: open(path, encoding="utf-8")'
        ) from None


def _called(tokenizer: Tokenizer, text: str, second: str | None, options: dict[str, Any]) -> Any:
    """What the tokenizer says of the texts, asked in the way of its kind."""
    if hasattr(tokenizer, "is_fast"):  # transformers
        if not tokenizer.is_fast:
            raise InvalidInput(
                f"{type(tokenizer).__name__} does not say where its tokens stand in the text; load the fast one: "
                "AutoTokenizer.from_pretrained(name, use_fast=True)"
            )
        return tokenizer(text, second, return_offsets_mapping=True, return_special_tokens_mask=True, **options)
    if second is not None or options:
        what = "two texts at once" if second is not None else f"{', '.join(options)}="
        raise InvalidInput(
            f"{what}: only a tokenizer of transformers can be asked that, and got a {type(tokenizer).__name__}"
        )
    if callable(tokenizer):
        return tokenizer(text)
    if callable(getattr(tokenizer, "encode", None)):  # tokenizers
        return tokenizer.encode(text)
    raise InvalidInput(
        f"the tokenizer is a {type(tokenizer).__name__}, which can't be called; expected a function from a text to its "
        "tokens"
    )


def _is_cut(answer: Any) -> bool:
    """Whether a tokenizer of Hugging Face says that it left tokens out."""
    encodings = getattr(answer, "encodings", None) or [answer]
    return bool(getattr(encodings[0], "overflowing", None))


def _one_below_the_other(found: _Fields | Encoding, start: int) -> _Fields:
    """The tokens of two texts as those of one text, in which the second text starts at `start`."""
    if isinstance(found, Encoding) or found.segments is None or found.offsets is None:
        raise InvalidInput("the tokenizer does not tell the tokens of two texts apart; give one of transformers")
    second = [segment == 1 for segment in found.segments]
    offsets = [
        (left + start, right + start) if own else (left, right)
        for (left, right), own in zip(found.offsets, second, strict=True)
    ]
    words = found.words
    if words is not None:
        first = max((w for w, own in zip(words, second, strict=True) if w is not None and not own), default=-1) + 1
        words = [w + first if w is not None and own else w for w, own in zip(words, second, strict=True)]
    return replace(found, offsets=offsets, words=words)


def _read(found: _Fields, text: str, unknown_id: int | None) -> Tokenized:
    size = len(found.ids)
    for name, values in vars(found).items():
        if values is not None and len(values) != size:
            raise InvalidInput(f"the tokenizer gives {size} ids and {len(values)} {name}; every token needs one entry")
    offsets = _found_again(text, found) if found.offsets is None else [_span(span) for span in found.offsets]
    special = _special(found, offsets)
    unknown = found.unknown
    if unknown is None:
        unknown = [unknown_id is not None and id_ == unknown_id for id_ in found.ids]
    words = _words(text, offsets, special, found.words)
    encoding = Encoding(
        text, tuple(found.ids), tuple(found.tokens), tuple(offsets), tuple(special), tuple(unknown), words
    )
    mask, kinds, segments = found.attention_mask, found.token_type_ids, found.segments
    return Tokenized(
        encoding,
        None if mask is None else tuple(map(int, mask)),
        None if kinds is None else tuple(map(int, kinds)),
        None if segments is None else tuple(segments),
    )


def _span(given: Any) -> tuple[int, int]:
    """A pair of character places. Raises InvalidInput for anything else."""
    try:
        start, end = given
        return operator.index(start), operator.index(end)
    except (TypeError, ValueError):
        raise InvalidInput(
            f"the tokenizer gives {given!r} as a token's offsets, expected a pair (start, end)"
        ) from None


def _fields(answer: Any) -> _Fields | Encoding:
    """The fields of an answer, whatever its kind."""
    if isinstance(answer, Encoding):
        return answer
    if isinstance(answer, Mapping):
        return _from_mapping(answer)
    if all(hasattr(answer, name) for name in ("ids", "tokens", "offsets")):
        names = {
            "special": "special_tokens_mask",
            "words": "word_ids",
            "attention_mask": "attention_mask",
            "token_type_ids": "type_ids",
            "segments": "sequence_ids",
        }
        given = {name: _listed(getattr(answer, theirs, None)) for name, theirs in names.items()}
        return _Fields(*(_listed(getattr(answer, name)) for name in ("ids", "tokens", "offsets")), **given)
    if isinstance(answer, tuple) and len(answer) in (2, 3):
        return _Fields(*map(_listed, answer))
    raise InvalidInput(f"the tokenizer returned a {type(answer).__name__}; {_EXPECTED}")


def _from_mapping(answer: Mapping[str, Any]) -> _Fields:
    """From a dict with our names or Hugging Face's; a BatchEncoding gives tokens and words by methods."""

    def field(*names: str) -> Any:
        for name in names:
            if name in answer:
                return _listed(answer[name])
        for name in names:
            if callable(getattr(answer, name, None)):
                return _listed(getattr(answer, name)())
        return None

    ids, tokens = field("ids", "input_ids"), field("tokens")
    if ids is None or tokens is None:
        missing = "ids" if ids is None else "tokens"
        raise InvalidInput(f"the tokenizer's answer has no {missing!r}; {_EXPECTED}")
    offsets, special = field("offsets", "offset_mapping"), field("special", "special_tokens_mask")
    mask, kinds = field("attention_mask"), field("token_type_ids")
    if len(ids) == 1 and isinstance(ids[0], Sequence):  # a batch of one, as with return_tensors="pt"
        batch = (ids, offsets, special, mask, kinds)
        ids, offsets, special, mask, kinds = (None if each is None else each[0] for each in batch)
    words, segments = field("word_ids", "words"), field("sequence_ids")
    return _Fields(ids, tokens, offsets, special, field("unknown"), words, mask, kinds, segments)


def _special(found: _Fields, offsets: Sequence[tuple[int, int]]) -> Sequence[bool]:
    if found.special is not None:
        return [bool(each) for each in found.special]
    if found.words is None:  # what stands for no part of the text is none of its words
        return [start == end for start, end in offsets]
    return [word is None and start == end for word, (start, end) in zip(found.words, offsets, strict=True)]


def _words(
    text: str, offsets: Sequence[tuple[int, int]], special: Sequence[bool], given: Sequence[int | None] | None
) -> tuple[int | None, ...]:
    """The tokenizer's own words, unless it does not tell them apart: some have the whole text as one word."""
    if given is None or _across_spaces(text, offsets, given):
        return words_in(text, offsets, special)
    if any(word is None and not apart for word, apart in zip(given, special, strict=True)):
        return words_in(text, offsets, special)
    return tuple(None if apart else word for word, apart in zip(given, special, strict=True))


def _across_spaces(text: str, offsets: Sequence[tuple[int, int]], words: Sequence[int | None]) -> bool:
    """Whether a space stands between two tokens of one word."""
    ends: dict[int, int] = {}
    for (start, end), word in zip(offsets, words, strict=True):
        if word is None or start == end:
            continue
        between = text[ends.get(word, start) : start] + (text[start : start + 1] if word in ends else "")
        if any(letter.isspace() for letter in between):
            return True
        ends[word] = end
    return False


def _found_again(text: str, found: _Fields) -> list[tuple[int, int]]:
    """Where each token stands in the text, found in reading order. Raises InvalidInput for a token that does not."""
    lowered = text.lower()
    same_places = len(lowered) == len(text)
    offsets = []
    place = 0
    for index, token in enumerate(found.tokens):
        if found.special is not None and found.special[index]:
            offsets.append((place, place))
            continue
        letters = _without_marks(token)
        start = text.find(letters, place) if letters else place
        if start < 0 and same_places:
            start = lowered.find(letters.lower(), place)
        if start < 0:
            raise InvalidInput(
                f"the tokenizer gives no offsets, and its token {token!r} (place {index}) is not found in the text "
                f"after {_short(text[:place], end=True)}. Give each token's (start, end) in the text as third entry: "
                "(ids, tokens, offsets)"
            )
        place = start + len(letters)
        offsets.append((start, place))
    return offsets


def _without_marks(token: str) -> str:
    for mark in _MARKS:
        if len(token) > len(mark):
            token = token.removeprefix(mark).removesuffix(mark)
    return token


def _units(text: str) -> list[int]:
    """For each character the index of its run of letters or of punctuation; -1 for a space."""
    units: list[int] = []
    kind_before, unit = "", -1
    for place, letter in enumerate(text):
        kind = _kind(text, place, letter)
        if kind != kind_before:
            unit += kind != " "
            kind_before = kind
        units.append(-1 if kind == " " else unit)
    return units


def _kind(text: str, place: int, letter: str) -> str:
    """A space, a punctuation mark or symbol, or a letter: what joins letters, as in "don't", counts as one."""
    if letter.isspace():
        return " "
    if unicodedata.category(letter)[0] not in "PS":
        return "a"
    inside = letter in "'\u2019-" and 0 < place < len(text) - 1
    return "a" if inside and text[place - 1].isalnum() and text[place + 1].isalnum() else "."


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    """The id that stands for what the vocabulary does not hold, where a Hugging Face tokenizer has one."""
    if hasattr(tokenizer, "unk_token_id"):
        return None if tokenizer.unk_token_id is None else int(tokenizer.unk_token_id)
    token = getattr(getattr(tokenizer, "model", None), "unk_token", None)
    if isinstance(token, str) and callable(getattr(tokenizer, "token_to_id", None)):
        found = tokenizer.token_to_id(token)
        return None if found is None else int(found)
    return None


def _listed(value: Any) -> Any:
    """Arrays and tensors as lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def _short(text: str, most: int = 40, *, end: bool = False) -> str:
    if len(text) <= most:
        return repr(text)
    return "..." + repr(text[-most:]) if end else repr(text[:most]) + "..."
