"""A model that reads texts: one of the zoo, or a folder of Hugging Face's with its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relprop import zoo
from relprop.cli.console import note_chosen
from relprop.cli.network import read_labels
from relprop.errors import InvalidInput
from relprop.models.huggingface_folder import load_folder
from relprop.text import TextExplainer

MODELS = {"ko": "reviews-ko", "en": "reviews-en"}


@dataclass(frozen=True)
class TextNetwork:
    """A model, and what makes a text its input; `rules` is the preset to start with."""

    name: str
    model: Any
    tokenizer: Any
    labels: Sequence[str] | None = None
    rules: str = "auto"


class TextNetworks:
    """The model for a text: the one asked for, or the zoo's for the text's language; each made once."""

    def __init__(
        self, asked: str | None, labels: str | None, *, truncation: bool = False, attention: bool = False
    ) -> None:
        self._asked, self._labels = asked, labels
        self._options: dict[str, Any] = {"truncation": truncation, "attention": attention}
        self._made: dict[str, tuple[TextNetwork, TextExplainer]] = {}
        self._chosen: set[str] = set()
        if asked is not None:
            self._of(asked)

    def of(self, text: str) -> tuple[TextNetwork, TextExplainer]:
        """The network and its explainer."""
        if self._asked is not None:
            return self._of(self._asked)
        name = MODELS[language_of(text)]
        if name not in self._chosen:
            self._chosen.add(name)
            note_chosen(name)
        return self._of(name)

    def _of(self, name: str) -> tuple[TextNetwork, TextExplainer]:
        if name not in self._made:
            net = text_network(name, self._labels)
            explainer = TextExplainer(net.model, net.tokenizer, net.rules, labels=net.labels, **self._options)
            self._made[name] = net, explainer
        return self._made[name]


def text_network(name: str, labels: str | None = None) -> TextNetwork:
    """The model `name`: one of the zoo, or a folder. The file `labels` replaces the class names that it brings along.

    Raises InvalidInput where there is neither, and the errors of `load_folder`.
    """
    given = None if labels is None else read_labels(Path(labels))
    if is_folder(name):
        return TextNetwork(name, *load_folder(Path(name)), given)
    try:
        entry = zoo.text_entry(name)
    except InvalidInput as error:
        if name in zoo.names():
            raise
        folder = Path(name).name
        raise InvalidInput(
            f"{error}. There is no folder {name!r} either. Nothing is downloaded: save a model of Hugging Face once by "
            f"model.save_pretrained({folder!r}) and tokenizer.save_pretrained({folder!r}), and write --model {folder}"
        ) from error
    return TextNetwork(name, entry.build(), entry.tokenizer, given or entry.labels, entry.rules)


def reads_text(name: str) -> bool:
    """Whether a model reads text: one of the zoo, or a folder."""
    return isinstance(zoo.entry(name), zoo.TextEntry) if name in zoo.names() else is_folder(name)


def is_folder(name: str) -> bool:
    """Whether a model is in a folder of this name; the zoo's names go first."""
    return name not in zoo.names() and Path(name).is_dir()


def language_of(text: str) -> str:
    """The language that a text is read as: "ko" if a third of its words or more have Hangul in them, else "en"."""
    written = text.split()
    korean = [
        word
        for word in written
        if any("\uac00" <= letter <= "\ud7a3" or "\u3131" <= letter <= "\u318e" for letter in word)
    ]
    return "ko" if korean and 3 * len(korean) >= len(written) else "en"
