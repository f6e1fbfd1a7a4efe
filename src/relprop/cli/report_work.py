"""What `relprop report` does with each input: the model for it, made once, and its explanations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from PIL import Image

from relprop import Explainer, zoo
from relprop.cli import options
from relprop.cli.console import note
from relprop.cli.network import Network, framing, network, read_labels
from relprop.cli.pictures import is_digit, open_picture
from relprop.cli.report_inputs import Source
from relprop.cli.text import MODELS as TEXT_MODELS
from relprop.cli.text import is_korean
from relprop.errors import InvalidInput
from relprop.methods import method_of
from relprop.presets import rule_map
from relprop.text import TextExplainer
from relprop.view.gallery import Item
from relprop.view.sheet import short_name
from relprop.view.style import Style

if TYPE_CHECKING:
    from relprop.attribution import Attribution
    from relprop.text import TextAttribution

LRP = "lrp"
CLIP = 99.5  # of photographs
SMALL = 64  # pixels a side, up to which every value of a picture is seen


class Work:
    """Explains one input after the other. Raises RelpropError or typer.BadParameter for what can't be asked for."""

    def __init__(
        self,
        model: str | None,
        rules: Sequence[str],
        methods: Sequence[str],
        target: str | None,
        clip: float | None,
        frame: tuple[int | None, str | None, str | None],
        bounds: tuple[float, float] | None,
        labels: str | None,
    ) -> None:
        if rules and methods and LRP not in methods:
            raise typer.BadParameter("presets are for lrp; add lrp to --method", param_hint="--rules")
        for preset in rules:
            rule_map(preset, bounds=(0.0, 1.0))
        for each in methods:
            if each != LRP:
                method_of(each)
        if clip is not None:
            Style(clip=clip)
        self.model, self.rules, self.methods, self.target, self.clip = model, rules, methods or [LRP], target, clip
        self.frame, self.bounds, self.labels = framing(*frame), bounds, labels
        self._networks: dict[str, tuple[Network, Explainer]] = {}
        self._readers: dict[str, list[TextExplainer]] = {}
        if model is not None:  # what is wrong with it is said once, not for every input
            if _reads(model):
                self._reader(model)
            else:
                self._network(model)

    def __call__(self, source: Source) -> Item:
        """The explanations of one input."""
        return self._of_text(source) if source.is_text else self._of_picture(source)

    def _of_picture(self, source: Source) -> Item:
        assert source.path is not None
        if self.model is not None and _reads(self.model):
            raise InvalidInput(f"{self.model} reads text, and this is no .txt file; explain the pictures apart")
        picture = open_picture(source.path)
        net, explainer = self._network(self._chosen("mnist-cnn" if is_digit(picture) else "efficientnet-lite0"))
        x = net.preprocess(picture)
        presets = (self.rules or [net.rules]) if LRP in self.methods else []
        others = [method for method in self.methods if method != LRP]
        compared = explainer.compare(x, presets, options.target_of(self.target, net.labels), methods=others)
        shown = _shown(net.name, picture)
        clip = self.clip if self.clip is not None else CLIP if max(x.shape[-2:]) > SMALL else None
        return Item(source.heading or source.name, _titled(compared), net.name, source.truth, shown, clip=clip)

    def _of_text(self, source: Source) -> Item:
        text = source.read()
        language = "ko" if is_korean(text) else "en"
        name = self._chosen(TEXT_MODELS[language])
        readers = self._reader(name)
        target: Any = options.target_of(self.target, readers[0].explainer.labels)
        explained = []
        for reader in readers:
            explained.append(reader(text, target))
            if target is None and explained[0].target is not None:  # the first decides what all explain
                target = int(explained[0].target[0])
        found = {short_name(each.rules, each.method): each for each in explained}
        return Item(source.heading or source.name, found, name, source.truth, language=language)

    def _chosen(self, fitting: str) -> str:
        """The model that was asked for, else the one that fits."""
        if self.model is None and fitting not in (*self._networks, *self._readers):
            note(f"model: {fitting}, as none was given (--model chooses another)")
        return self.model or fitting

    def _network(self, name: str) -> tuple[Network, Explainer]:
        if name not in self._networks:
            net = network(name, self.frame, self.bounds, self.labels)
            explainer = Explainer(net.model, net.rules, bounds=net.bounds, labels=net.labels)
            self._networks[name] = net, explainer
        return self._networks[name]

    def _reader(self, name: str) -> list[TextExplainer]:
        """An explainer for each preset and method."""
        if name not in self._readers:
            model, tokenizer, rules, labels = self._read(name)
            presets = (self.rules or [rules]) if LRP in self.methods else []
            others = [method for method in self.methods if method != LRP]
            self._readers[name] = [
                *(TextExplainer(model, tokenizer, preset, labels=labels) for preset in presets),
                *(TextExplainer(model, tokenizer, method=method, labels=labels) for method in others),
            ]
        return self._readers[name]

    def _read(self, name: str) -> tuple[Any, Any, str, Sequence[str] | None]:
        """(model, tokenizer, preset, class names) of the zoo, or of a folder of Hugging Face's."""
        labels = None if self.labels is None else read_labels(Path(self.labels))
        if _is_folder(name):
            from relprop.models.huggingface_folder import load_folder

            return *load_folder(Path(name)), "auto", labels
        if not _reads(name):
            raise InvalidInput(
                f"{name} looks at pictures, and this is a text; explain the texts apart, by a text model"
            )
        entry = zoo.text_entry(name)
        return entry.build(), entry.tokenizer, entry.rules, labels or entry.labels


def _reads(name: str) -> bool:
    """Whether a model reads text: one of the zoo, or a folder of Hugging Face's."""
    return isinstance(zoo.entry(name), zoo.TextEntry) if name in zoo.names() else _is_folder(name)


def _is_folder(name: str) -> bool:
    return name not in zoo.names() and Path(name).is_dir()


def _shown(name: str, picture: Image.Image) -> Image.Image | None:
    """What a model of the zoo sees of a picture; of another model, its input is drawn."""
    return zoo.picture_entry(name).display(picture) if name in zoo.names() else None


def _titled(compared: dict[str, Attribution]) -> dict[str, Attribution | TextAttribution]:
    """Explanations by a short name: that of the preset which `auto` stands for, too."""
    return {short_name(each.rules) if name == "auto" else name: each for name, each in compared.items()}
