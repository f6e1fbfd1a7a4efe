"""Texts as a Hugging Face model reads them: one, two at once, or one and the start of its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from relprop.errors import InvalidInput, UnsupportedModel
from relprop.inputs import no_place
from relprop.models.huggingface import head_name, holds_huggingface, takes
from relprop.text.encoding import Encoding
from relprop.text.heads import Head, head_of
from relprop.text.tokenizers import Tokenized, Tokenizer, tokenize

Text = str | Mapping[str, str]

# The names by which transformers takes two texts, and ours for what a decoder has written so far.
_PAIRS = (("question", "context"), ("text", "text_pair"))
_PREFIX = ("text", "prefix")
_LEAST_LIMIT, _MOST_LIMIT = 1, 1_000_000  # what a tokenizer says beyond is no limit


@dataclass(frozen=True, eq=False)
class Reading:
    """A text as tokens, and what a model makes of it.

    Attributes:
        model: it is called with `inputs`.
        made: all tokens, those that a decoder reads last.
        decoded: how many those are; 0 for a model without a decoder.
        second: where in the text the second one starts; 0 where there is one.
        labels: class names, by index.
    """

    model: Any
    tokenizer: Tokenizer
    made: Tokenized
    decoded: int
    second: int
    labels: tuple[str, ...] | None
    device: torch.device | None

    @property
    def encoding(self) -> Encoding:
        """The text and its tokens."""
        return self.made.encoding

    @cached_property
    def inputs(self) -> Tensor | dict[str, Tensor]:
        """What the model is given, each (1, tokens): ids alone where the tokenizer says no more of them."""
        read = len(self.encoding) - self.decoded
        ids = self._row(self.encoding.ids[:read])
        given = {"attention_mask": self.made.attention_mask}
        if holds_huggingface(self.model):
            given["token_type_ids"] = self.made.token_type_ids
        beside = {name: self._row(each) for name, each in given.items() if each is not None and takes(self.model, name)}
        if self.decoded:
            beside["decoder_input_ids"] = self._row(self.encoding.ids[read:])
        return {"input_ids": ids, **beside} if beside and takes(self.model, "input_ids") else ids

    @cached_property
    def output(self) -> Any:
        """What the model returns, without an explanation."""
        cache = {"use_cache": False} if takes(self.model, "use_cache") else {}
        ids = self.inputs["input_ids"] if isinstance(self.inputs, dict) else self.inputs
        with torch.no_grad():
            try:
                return self.model(**self.inputs, **cache) if isinstance(self.inputs, dict) else self.model(ids, **cache)
            except IndexError as error:
                raise no_place([ids]) from error

    def _row(self, values: Sequence[int]) -> Tensor:
        return torch.tensor([values], dtype=torch.int64, device=self.device)


def read(model: Any, tokenizer: Tokenizer, text: Text, *, labels: tuple[str, ...] | None, truncation: bool) -> Reading:
    """The text as `model` reads it. Raises InvalidInput for what is too long, or does not suit its head."""
    head = head_of(model)
    first, second, prefix = _parts(text)
    _require_readable(model, head, second, prefix)
    made = _tokens(tokenizer, first, second, head, _limit(model, tokenizer), truncation)
    written = 0
    if head is Head.DECODER:
        answer = _decoder_tokens(model, tokenizer, prefix)
        made, written = replace(made, encoding=made.encoding + answer), len(answer)
    device = next((each.device for each in getattr(model, "parameters", tuple)()), None)
    return Reading(model, tokenizer, made, written, 0 if second is None else len(first) + 1, labels, device)


def _require_readable(model: Any, head: Head, second: str | None, prefix: str | None) -> None:
    """An error for texts that the model can't take in this form."""
    if "MultipleChoice" in head_name(model):
        raise UnsupportedModel(
            f"{type(model).__name__} reads several texts at once, one for each choice; write read = "
            'tokenizer([question] * len(choices), choices, padding=True, return_tensors="pt") and '
            "relprop.explain(model, {name: each[None] for name, each in read.items()}, target=0)"
        )
    if head is Head.ANSWER and second is None:
        raise InvalidInput(
            'question answering needs two texts: explain_text(model, tokenizer, {"question": ..., "context": ...})'
        )
    if prefix is not None and head is not Head.DECODER:
        raise InvalidInput(
            f'"prefix" is what a decoder wrote so far, and {type(model).__name__} has none; leave it away'
        )


def _tokens(
    tokenizer: Tokenizer, first: str, second: str | None, head: Head, limit: int | None, truncation: bool
) -> Tokenized:
    """The tokens, no more of them than the model reads."""
    options: dict[str, Any] = {}
    if truncation and limit is None:
        raise InvalidInput("truncation=True: neither the tokenizer nor the model says how much it reads; leave it away")
    if truncation:
        options = {"truncation": "only_second" if head is Head.ANSWER else True, "max_length": limit}
    made = tokenize(tokenizer, first, second, **options)
    if limit is not None and len(made.encoding) > limit:
        raise InvalidInput(
            f"the text has {len(made.encoding)} tokens, and the model reads at most {limit} (model_max_length of the "
            "tokenizer, max_position_embeddings of model.config). Shorten it, or let it be cut: "
            "explain_text(..., truncation=True)"
        )
    return made


def _parts(text: Any) -> tuple[str, str | None, str | None]:
    """(text, second text, start of the answer)."""
    if not isinstance(text, Mapping):
        return text, None, None
    for names in (*_PAIRS, _PREFIX):
        if set(text) == set(names):
            first, second = (text[name] for name in names)
            return (first, None, second) if names == _PREFIX else (first, second, None)
    raise InvalidInput(
        f"got a text of {', '.join(map(repr, text))}; expected a str, or a dict with "
        + ", with ".join(" and ".join(map(repr, names)) for names in (*_PAIRS, _PREFIX))
    )


def _limit(model: Any, tokenizer: Tokenizer) -> int | None:
    """How many tokens the model reads, where it or its tokenizer says so."""
    told = (
        getattr(tokenizer, "model_max_length", None),
        getattr(getattr(model, "config", None), "max_position_embeddings", None),
    )
    return min((each for each in told if isinstance(each, int) and _LEAST_LIMIT <= each < _MOST_LIMIT), default=None)


def _decoder_tokens(model: Any, tokenizer: Tokenizer, prefix: str | None) -> Encoding:
    """What the decoder reads first: its start token, and what it has written so far."""
    start = model.config.decoder_start_token_id
    if start is None:
        raise InvalidInput(
            f"{type(model).__name__} does not say with which token its decoder starts; write "
            "model.config.decoder_start_token_id = tokenizer.pad_token_id (T5), or what the model was trained with"
        )
    token = str(tokenizer.convert_ids_to_tokens(start)) if hasattr(tokenizer, "convert_ids_to_tokens") else f"<{start}>"
    first = Encoding("", (start,), (token,), ((0, 0),), (True,), (False,), (None,))
    if prefix is None:
        return first
    return first + tokenize(tokenizer, prefix, add_special_tokens=False).encoding
