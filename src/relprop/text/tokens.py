"""Tokens by their text, and words by theirs: what stands where, and which id is meant."""

from __future__ import annotations

import operator
from typing import Any

from relprop.errors import InvalidTarget
from relprop.text.encoding import Encoding
from relprop.text.tokenizers import Tokenizer

_SPACE = "\u2581"  # as SentencePiece writes the space before a token


def places_of(encoding: Encoding, word: str, start: int = 0) -> list[int]:
    """The places of the tokens of a word or phrase that stands in the text once, from character `start` on.

    Raises InvalidTarget where it stands there several times, or not at all.
    """
    text = encoding.text
    found = [place for place in range(start, len(text)) if word and text.startswith(word, place)]
    found = [place for place in found if _whole(text, place, place + len(word))]
    if not found:
        raise InvalidTarget(f"there is no {word!r} in the text; give a word as it is written there")
    spans = [_covering(encoding, place, place + len(word)) for place in found]
    if len(found) > 1:
        listed = ", ".join(str(places[0]) for places in spans if places)
        raise InvalidTarget(
            f"{word!r} stands in the text {len(found)} times; give the place of a token, one of {listed}"
        )
    if not spans[0]:
        raise InvalidTarget(f"no token stands for {word!r}: it was cut, or left out by the tokenizer")
    return spans[0]


def shown_at(encoding: Encoding, first: int, last: int | None = None) -> str:
    """The words that the tokens from `first` to `last` are part of, on one line."""
    last = first if last is None else last
    if not encoding.special[first] and not encoding.special[last]:
        words = {encoding.words[first], encoding.words[last]}
        spans = [span for span, word in zip(encoding.offsets, encoding.words, strict=True) if word in words]
        text = encoding.text[min(start for start, _ in spans) : max(end for _, end in spans)]
        if text.strip():
            return " ".join(text.split())
    return encoding.tokens[first] if first == last else f"{encoding.tokens[first]} ... {encoding.tokens[last]}"


def decoded(tokenizer: Tokenizer, id_: int) -> str:
    """A token as a reader knows it, with the space before it if it has one: " Paris" is another token than "Paris"."""
    text = str(tokenizer.decode([id_])) if hasattr(tokenizer, "decode") else ""
    written = str(tokenizer.convert_ids_to_tokens(id_)) if hasattr(tokenizer, "convert_ids_to_tokens") else ""
    bare = text.strip()
    if bare and bare.isprintable() and "\ufffd" not in bare:
        # Some tokenizers leave a space at the beginning of a text away.
        return f" {bare}" if text.startswith(" ") or written.startswith(_SPACE) else bare
    return written or f"token {id_}"


def token_id(tokenizer: Tokenizer, target: Any) -> int:
    """The id of a token that is given by its id or its text. Raises InvalidTarget for what is no single token."""
    if isinstance(target, str):
        return _id_of_text(tokenizer, target)
    if isinstance(target, bool) or not hasattr(target, "__index__"):
        raise InvalidTarget(f"got {target!r} as a token, expected its id or its text")
    if operator.index(target) < 0:
        raise InvalidTarget(f"got {target} as a token; ids start at 0")
    return operator.index(target)


def _id_of_text(tokenizer: Tokenizer, text: str) -> int:
    if not hasattr(tokenizer, "convert_ids_to_tokens"):
        raise InvalidTarget(
            f"the token {text!r} is given as text, and {type(tokenizer).__name__} can't look it up; give its id"
        )
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    known = tokenizer.get_vocab().get(text)  # as the vocabulary writes it, such as "</s>"
    if len(ids) != 1 and known is not None:
        return int(known)
    if len(ids) != 1:
        listed = ", ".join(f"{tokenizer.convert_ids_to_tokens(id_)!r} ({id_})" for id_ in ids)
        raise InvalidTarget(
            f"{text!r} is {len(ids)} tokens, {listed or 'none'}, and a model says one at a time; give the id of one, "
            "after a text that ends with those before it"
        )
    if ids[0] == tokenizer.unk_token_id and known is None:
        raise InvalidTarget(f"{text!r} is not in the vocabulary")
    return int(ids[0])


def _whole(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] ends where words do."""
    before, after = text[start - 1 : start], text[end : end + 1]
    return not (before.isalnum() and text[start].isalnum()) and not (after.isalnum() and text[end - 1].isalnum())


def _covering(encoding: Encoding, start: int, end: int) -> list[int]:
    """The places of the tokens that stand for text[start:end]."""
    return [
        place
        for place, (left, right) in enumerate(encoding.offsets)
        if left < end and right > start and not encoding.special[place]
    ]
