"""From a text to the words that made the decision."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from relprop.attribution import Attribution
from relprop.errors import InvalidInput, InvalidOutput, InvalidTarget
from relprop.explainer import Explainer
from relprop.presets import Rules
from relprop.targets import Target
from relprop.text.attribution import TextAttribution
from relprop.text.tokenizers import Tokenized, Tokenizer, tokenize

if TYPE_CHECKING:
    from relprop.methods import Method

Progress = Callable[[int, int], None]


def explain_text(
    model: Callable[..., Any],
    tokenizer: Tokenizer,
    text: str | Sequence[str],
    target: Target = None,
    *,
    rules: Rules = "auto",
    method: str | Method = "lrp",
    labels: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Any:
    """Redistribute a model's score onto the words of a text.

    model: called with token ids, (1, tokens) int64; where the tokenizer gives an attention mask and the model takes
        one, with `input_ids` and `attention_mask`. It is not changed.
    tokenizer: a function from a text to a relprop.text.Encoding, or to a dict or tuple of ids, tokens and offsets; a
        fast tokenizer of Hugging Face's transformers; a `tokenizers.Tokenizer`.
    text: one text, or a list of them; each is explained by itself, so that none is padded.
    target, rules, labels: as for relprop.explain; a list of targets gives each text its own.
    method: "lrp", or another as for relprop.explain, as "gradient".
    progress: called with (texts done, texts in all) after each text.

    Returns a TextAttribution, or a list of them for several texts. Raises children of relprop.errors.RelpropError.
    """
    explainer = TextExplainer(model, tokenizer, rules, method=method, labels=labels)
    if isinstance(text, str):
        return explainer(text, target)
    texts = _texts(text)
    targets = _targets(target, len(texts))
    found = []
    for done, (each, wanted) in enumerate(zip(texts, targets, strict=True), start=1):
        found.append(explainer(each, wanted))
        if progress is not None:
            progress(done, len(texts))
    return found


class TextExplainer:
    """Explains many texts by one model; modified weights are prepared once. Arguments as for `explain_text`."""

    def __init__(
        self,
        model: Callable[..., Any],
        tokenizer: Tokenizer,
        rules: Rules = "auto",
        *,
        method: str | Method = "lrp",
        labels: Sequence[str] | None = None,
    ) -> None:
        if isinstance(tokenizer, torch.nn.Module):
            raise InvalidInput("got a model as the tokenizer; write explain_text(model, tokenizer, text)")
        self.tokenizer = tokenizer
        self.explainer = Explainer(model, rules, method=method, labels=labels)
        self.method = "lrp" if self.explainer.method is None else self.explainer.method.name
        self.has_sign = not getattr(self.explainer.method, "squared", False)
        self._takes_mask = {"input_ids", "attention_mask"} <= _parameters(model)
        self._device = _device(model)

    def __call__(self, text: str, target: Target = None) -> TextAttribution:
        """What made the model decide about one text."""
        made = tokenize(self.tokenizer, text)
        attribution: Attribution = self.explainer(self._inputs(made), target)
        return TextAttribution(made.encoding, _of_tokens(attribution, len(made.encoding)), self.method, self.has_sign)

    def _inputs(self, made: Tokenized) -> Tensor | dict[str, Tensor]:
        ids = torch.tensor([made.encoding.ids], dtype=torch.int64, device=self._device)
        if made.attention_mask is None or not self._takes_mask:
            return ids
        mask = torch.tensor([made.attention_mask], dtype=torch.int64, device=self._device)
        return {"input_ids": ids, "attention_mask": mask}


def _of_tokens(attribution: Attribution, tokens: int) -> Attribution:
    """The explanation, with the relevance of the tokens only: that of a mask is none."""
    relevance = attribution.relevance
    if isinstance(relevance, dict) and set(relevance) == {"input_ids"}:
        attribution.relevance = relevance = relevance["input_ids"]
        attribution.inputs = attribution.inputs["input_ids"] if isinstance(attribution.inputs, dict) else None
    if not isinstance(relevance, Tensor) or relevance.shape != (1, tokens):
        found = tuple(relevance.shape) if isinstance(relevance, Tensor) else type(relevance).__name__
        raise InvalidOutput(f"expected one relevance for each of {tokens} tokens, shape (1, {tokens}), got {found}")
    return attribution


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


def _parameters(model: Any) -> set[str]:
    """The names by which a model takes its inputs."""
    function = model.forward if isinstance(model, nn.Module) else model
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return set()


def _device(model: Any) -> torch.device | None:
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((each.device for each in parameters), None)
