"""From a text to the words that made the decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from relprop.attribution import Attribution
from relprop.errors import InvalidInput, InvalidOutput, InvalidTarget
from relprop.explainer import Explainer
from relprop.models.huggingface import is_pipeline, model_of, truncates
from relprop.models.prepare import refuse_training
from relprop.presets import Rules
from relprop.progress import Progress, told
from relprop.results import Comparison, Explanations
from relprop.targets import Target
from relprop.text.attribution import TextAttribution
from relprop.text.heads import Asked, Head, asked, head_of
from relprop.text.reading import Reading, Text, read
from relprop.text.tokenizers import Tokenizer

if TYPE_CHECKING:
    from relprop.methods import Method


@overload
def explain_text(
    model: Any,
    text: Text | Sequence[Text],
    target: Target = ...,
    *,
    tokenizer: Tokenizer | None = ...,
    rules: Rules = ...,
    method: str | Method = ...,
    labels: Sequence[str] | None = ...,
    truncation: bool = ...,
    attention: bool = ...,
    progress: bool | Progress | None = ...,
) -> Any: ...


@overload
def explain_text(
    model: Any,
    tokenizer: Tokenizer,
    text: Text | Sequence[Text],
    target: Target = ...,
    *,
    rules: Rules = ...,
    method: str | Method = ...,
    labels: Sequence[str] | None = ...,
    truncation: bool = ...,
    attention: bool = ...,
    progress: bool | Progress | None = ...,
) -> Any: ...


def explain_text(
    model: Any,
    *given: Any,
    tokenizer: Tokenizer | None = None,
    rules: Rules = "auto",
    method: str | Method = "lrp",
    labels: Sequence[str] | None = None,
    truncation: bool = False,
    attention: bool = False,
    progress: bool | Progress | None = None,
    **named: Any,
) -> Any:
    """Redistribute a model's score onto the words of a text.

    Written explain_text(pipeline, text), explain_text(model, tokenizer, text) or with tokenizer=... by name.

    model: called with token ids, (1, tokens) int64; where the tokenizer gives an attention mask or token types and the
        model takes them, by the names `input_ids`, `attention_mask` and `token_type_ids`. It is not changed. A pipeline
        of transformers brings its tokenizer along.
    tokenizer: a function from a text to a relprop.text.Encoding, or to a dict or tuple of ids, tokens and offsets; a
        fast tokenizer of Hugging Face's transformers; a `tokenizers.Tokenizer`.
    text: one text, or a list of them; each is explained by itself, so that none is padded. Two texts that a model reads
        at once as {"question": ..., "context": ...} or {"text": ..., "text_pair": ...}; what a decoder wrote so far as
        {"text": ..., "prefix": ...}.
    target: as for relprop.explain; a list of targets gives each text its own. Models of transformers by their head:
        a class's name or index; a token's text or id for what comes next, or for a masked word; a label for the token
        it is given to; the answer as text. None: what the model says itself. For a certain place, and for the
        difference of two scores, see relprop.targets.
    rules, labels: as for relprop.explain.
    method: "lrp", or another as for relprop.explain, as "gradient".
    truncation: cut what is longer than the model reads, with a note, instead of refusing it.
    attention: True for what passes from word to word too, in the model's blocks: `flow()` of the TextAttribution.
    progress: True for a bar on a terminal or in a notebook, or a function of (texts done, texts in all).

    Returns a TextAttribution, or a list of them for several texts. Raises children of relprop.errors.RelpropError.
    """
    tokenizer, text, target = _arguments(given, tokenizer, named)
    explainer = TextExplainer(
        model, tokenizer, rules, method=method, labels=labels, truncation=truncation, attention=attention
    )
    if isinstance(text, (str, Mapping)):
        return explainer(text, target)
    texts = _texts(text)
    targets = _targets(target, len(texts))
    found = Explanations()
    for each, wanted in told(list(zip(texts, targets, strict=True)), progress, "explaining texts"):
        found.append(explainer(each, wanted))
    return found


def _arguments(
    given: tuple[Any, ...], tokenizer: Tokenizer | None, named: dict[str, Any]
) -> tuple[Tokenizer | None, Any, Target]:
    """(tokenizer, text, target) from what was given by position, where a tokenizer stands before the text, and by name.

    Raises TypeError as Python does for arguments that don't fit.
    """
    names = ["text", "target"]
    if given and tokenizer is None and not isinstance(given[0], (str, bytes, list, tuple, Mapping)):
        tokenizer, *given_ = given
    else:
        given_ = list(given)
    if len(given_) > len(names) or not set(named) <= set(names[len(given_) :]):
        raise TypeError(
            "explain_text takes (pipeline, text, target) or (model, tokenizer, text, target), each once; got "
            f"{len(given) + 1} arguments by position and {', '.join(named) or 'none'} by name"
        )
    found = {**dict(zip(names, given_, strict=False)), **named}
    if "text" not in found:
        raise InvalidInput(
            "there is no text; write explain_text(model, tokenizer, text), or explain_text(pipeline, text)"
        )
    return tokenizer, found["text"], found.get("target")


class TextExplainer:
    """Explains many texts by one model; modified weights are prepared once. Arguments as for `explain_text`."""

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer | None = None,
        rules: Rules = "auto",
        *,
        method: str | Method = "lrp",
        labels: Sequence[str] | None = None,
        truncation: bool = False,
        attention: bool = False,
    ) -> None:
        if isinstance(tokenizer, torch.nn.Module):
            raise InvalidInput("got a model as the tokenizer; write explain_text(model, tokenizer, text)")
        self.truncation, self.attention = truncation, attention
        if is_pipeline(model):
            model, pipeline = model_of(model, text=True), model
            tokenizer = pipeline.tokenizer if tokenizer is None else tokenizer
            self.truncation = truncation or truncates(pipeline)
        if tokenizer is None:
            raise InvalidInput("there is no tokenizer; write explain_text(model, tokenizer, text)")
        self.tokenizer = tokenizer
        self.explainer = Explainer(model, rules, method=method, labels=labels)

    def __call__(self, text: Text, target: Target = None) -> TextAttribution:
        """What made the model decide about one text."""
        reading = self._read(text)
        wanted = asked(reading, target)
        explained = self.explainer(reading.inputs, wanted.target, attention=self.attention)
        return _of_text(reading, wanted, explained, self.explainer.method)

    def compare(
        self,
        text: Text,
        rules: Sequence[Rules] = (),
        target: Target = None,
        *,
        methods: Sequence[str | Method] = (),
    ) -> Comparison[TextAttribution]:
        """Several explanations of the same score of one text, a dict {name of the preset, rule map or method:
        TextAttribution}.

        rules: rule maps of LRP, which share one forward pass. methods: as `method` of `explain_text`; "lrp" stands for
        this explainer's own rules.
        """
        from relprop.methods import method_of

        reading = self._read(text)
        wanted = asked(reading, target)
        compared = self.explainer.compare(
            reading.inputs, rules, wanted.target, methods=methods, attention=self.attention
        )
        made_by = {str(each): method_of(each) for each in methods}
        return Comparison(
            (name, _of_text(reading, wanted, explained, made_by.get(name))) for name, explained in compared.items()
        )

    def _read(self, text: Text) -> Reading:
        """The text as the model reads it."""
        refuse_training(self.explainer.model)
        labels, truncation = self.explainer.labels, self.truncation
        return read(self.explainer.model, self.tokenizer, text, labels=labels, truncation=truncation)


def _of_text(reading: Reading, wanted: Asked, explained: Attribution, method: Method | None) -> TextAttribution:
    """The explanation of the tokens as one of the text; `method` made it, None for LRP."""
    attribution = _of_tokens(explained, len(reading.encoding))
    attribution.notes += _notes(reading)
    return TextAttribution(
        reading.encoding,
        attribution,
        "lrp" if method is None else method.name,
        has_sign=not getattr(method, "squared", False),
        claim=wanted.claim,
        continuation=wanted.continuation,
        continues_at=wanted.continues_at,
    )


def _notes(reading: Reading) -> tuple[str, ...]:
    """What a reader should know of how the text was read."""
    encoding, notes = reading.encoding, []
    if reading.made.cut:
        read_to = max(end for _, end in encoding.offsets)
        notes.append(f"the text was cut: the model read it up to ...{encoding.text[:read_to][-_SHOWN:]!r}")
    if head_of(reading.model) is Head.NEXT and encoding.special[-1]:
        notes.append(f"the tokenizer puts {encoding.tokens[-1]} at the end, and the model reads it as part of the text")
    return tuple(notes)


_SHOWN = 30  # letters, of where a text was cut


def _of_tokens(attribution: Attribution, tokens: int) -> Attribution:
    """The explanation with the relevance of the tokens as one row, a decoder's last: (1, tokens)."""
    relevance, inputs = attribution.relevance, attribution.inputs
    if isinstance(relevance, dict) and set(relevance) <= set(_IDS):
        attribution.relevance = relevance = torch.cat([relevance[name] for name in _IDS if name in relevance], 1)
        if isinstance(inputs, dict):
            attribution.inputs = torch.cat([inputs[name] for name in _IDS if name in inputs], 1)
    if not isinstance(relevance, Tensor) or relevance.shape != (1, tokens):
        found = tuple(relevance.shape) if isinstance(relevance, Tensor) else type(relevance).__name__
        raise InvalidOutput(f"expected one relevance for each of {tokens} tokens, shape (1, {tokens}), got {found}")
    return attribution


_IDS = ("input_ids", "decoder_input_ids")


def _texts(text: Any) -> list[str]:
    if not isinstance(text, Sequence) or isinstance(text, bytes):
        raise InvalidInput(f"got a {type(text).__name__} as text, expected a str, or a list of them for several texts")
    if not text:
        raise InvalidInput("text=[] holds no text; give at least one")
    return list(text)


def _targets(target: Target, count: int) -> list[Target]:
    """One target for each text."""
    several = isinstance(target, Sequence) and not isinstance(target, str)
    if not several and getattr(target, "ndim", 0) != 1:
        return [target] * count
    targets: list[Any] = list(target)  # type: ignore[arg-type]
    if len(targets) != count:
        raise InvalidTarget(f"there are {len(targets)} targets for {count} texts; give one for all, or one for each")
    return targets
