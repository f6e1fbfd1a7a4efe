"""Readers: from what is asked about to a model's input, and from questions to explanations."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from relprop import rulebook
from relprop.app.asking import Input, Question
from relprop.app.pictures import Pictures
from relprop.app.recent import Recent
from relprop.attribution import LRP, Attribution
from relprop.errors import InvalidInput, RelpropError
from relprop.explainer import Explainer
from relprop.methods import METHODS, Method, method_of
from relprop.models.prepare import named_modules, rehoused
from relprop.presets import AUTO, Bounds, Rules
from relprop.rulemap import RuleMap, as_rule_map
from relprop.text import TextAttribution, TextExplainer
from relprop.view.panels import input_picture

CUSTOM_USES = 16  # of an explainer by rules of users' own, which keeps weights for every rule that it has met
INPUTS = 8  # made of pictures

log = logging.getLogger(__name__)

Target = int | str | None
Found = Attribution | TextAttribution | RelpropError
Watch = Callable[[int, int], object]  # called with (done, total) by slow methods; what it raises ends them


@dataclass(frozen=True, eq=False)
class Given:
    """What is explained: the model's input, or a text; and what the model saw of a picture."""

    x: Any
    picture: Image.Image | None = None


class Reader(ABC):
    """What reads for one model, and explains what it read; `explainer` explains the model by LRP."""

    explainer: Explainer
    labels: tuple[str, ...] | None
    layers: Sequence[str] = ()
    clip: float | None = None
    _custom: Any = None
    _uses = 0

    @abstractmethod
    def given(self, asked: Input, pictures: Pictures) -> Given:
        """What a request asks about. Raises InvalidInput where this model can't read it."""

    @abstractmethod
    def _fresh(self) -> Any:
        """An explainer that has prepared no weights yet."""

    @abstractmethod
    def _compared(
        self, x: Any, target: Target, rules: Sequence[Rules], methods: Sequence[Method], layers: Sequence[str]
    ) -> Mapping[str, Found]:
        """The explanations by these rules and methods."""

    def explain(self, given: Given, target: Target, questions: Sequence[Question], watch: Watch) -> list[Found]:
        """The answer to each question, or why there is none."""
        found: list[Found | None] = [None] * len(questions)
        maps: dict[int, Rules] = {}
        for place, question in enumerate(questions):
            try:
                if question.method == LRP:
                    maps[place] = rules_of(question, self.explainer.bounds)
                else:
                    method = method_asked(question, watch)
                    (found[place],) = self._compared(given.x, target, (), [method], ()).values()
            except RelpropError as error:
                found[place] = error
        layers = list(dict.fromkeys(q.layer for place, q in enumerate(questions) if q.layer and place in maps))
        for place, answer in self._by_lrp(given.x, target, maps, layers, questions).items():
            found[place] = answer
        return [each for each in found if each is not None]

    def _by_lrp(
        self, x: Any, target: Target, maps: dict[int, Rules], layers: list[str], questions: Sequence[Question]
    ) -> dict[int, Found]:
        """The answers by LRP, from one forward pass; one by one where that fails, to tell whose rules are at fault."""
        if not maps:
            return {}
        distinct = {_name(rules): rules for rules in maps.values()}
        try:
            compared = self._compared(x, target, list(distinct.values()), (), layers)
            return {place: compared[_name(rules)] for place, rules in maps.items()}
        except RelpropError as error:
            if len(maps) == 1:
                return dict.fromkeys(maps, error)
        alone: dict[int, Found] = {}
        for place, rules in maps.items():
            own = questions[place].layer
            alone |= self._by_lrp(x, target, {place: rules}, [own] if own else [], questions)
        return alone

    def _for_own_rules(self) -> Any:
        """The explainer for users' own rules, a fresh one now and then; for presets, which are few, one is enough."""
        if self._uses % CUSTOM_USES == 0:
            self._custom = self._fresh()
        self._uses += 1
        return self._custom


@dataclass(eq=False)
class Values(Reader):
    """Reads drawings, pictures and series: `draw` from 0..255 to the model's input, `preprocess` from a picture.

    display: what the model sees of a picture; by default its input as a picture. clip: the percentile of |relevance|
    that gets full colour.
    """

    explainer: Explainer
    input_shape: tuple[int, ...] | None
    preprocess: Callable[[Image.Image], Tensor] | None = None
    display: Callable[[Image.Image], Image.Image] | None = None
    draw: Callable[[Tensor], Tensor] | None = None
    clip: float | None = None
    layers: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.labels = self.explainer.labels
        self._inputs: Recent[str, Given] = Recent(INPUTS)

    def given(self, asked: Input, pictures: Pictures) -> Given:
        if asked.digit is not None and self.draw is not None:
            ink = torch.frombuffer(bytearray(asked.drawing), dtype=torch.uint8).reshape(1, 1, 28, 28)
            return Given(self.draw(ink.float()), Image.frombytes("L", (28, 28), asked.drawing))
        if asked.picture is not None and self.preprocess is not None:
            name = asked.picture
            return self._inputs.made(name, lambda: self._seen(pictures.open(name)))
        if asked.values is not None and self.preprocess is None:
            return Given(self._series(asked.values))
        readable = {"digit": self.draw, "picture": self.preprocess, "values": self.preprocess is None}
        raise _unreadable(asked, [kind for kind, reads in readable.items() if reads])

    def _compared(
        self, x: Any, target: Target, rules: Sequence[Rules], methods: Sequence[Method], layers: Sequence[str]
    ) -> Mapping[str, Found]:
        explainer = self.explainer if _are_presets(rules) else self._for_own_rules()
        return explainer.compare(x, rules, target, methods=methods, layers=layers)

    def _fresh(self) -> Explainer:
        return Explainer(self.explainer.model, bounds=self.explainer.bounds, labels=self.explainer.labels)

    def _seen(self, picture: Image.Image) -> Given:
        assert self.preprocess is not None
        x = self.preprocess(picture)
        return Given(x, self.display(picture) if self.display is not None else seen(x, self.explainer.bounds))

    def _series(self, values: Any) -> Tensor:
        x = torch.tensor(values, dtype=torch.float32)
        wanted = self.input_shape or tuple(x.shape)
        if x.numel() != np.prod(wanted) or (x.dim() == 2 and x.shape[-1] != wanted[-1]):
            raise InvalidInput(f"this model reads values of shape {wanted}, and got {tuple(x.shape)}")
        return x.reshape(1, *wanted)


class Words(Reader):
    """Reads texts."""

    def __init__(self, model: Any, tokenizer: Any, labels: Sequence[str] | None) -> None:
        self._model, self._tokenizer, self._labels = model, tokenizer, labels
        self._texts = self._fresh()
        self.explainer = self._texts.explainer
        self.labels = self.explainer.labels

    def given(self, asked: Input, pictures: Pictures) -> Given:
        if asked.text is None:
            raise _unreadable(asked, ["text"])
        return Given(asked.text)

    def _compared(
        self, x: Any, target: Target, rules: Sequence[Rules], methods: Sequence[Method], layers: Sequence[str]
    ) -> Mapping[str, Found]:
        if layers:
            raise InvalidInput("layers are shown of models that read pictures or series, and this one reads text")
        texts = self._texts if _are_presets(rules) else self._for_own_rules()
        return texts.compare(x, rules, target, methods=methods)

    def _fresh(self) -> TextExplainer:
        return TextExplainer(self._model, self._tokenizer, labels=self._labels)


def rules_of(question: Question, bounds: Bounds | None) -> Rules:
    """The rules that a question asks for: a preset's name, a rule, or a rule map. Raises InvalidRule."""
    if isinstance(question.rules, str):
        return rulebook.rules_of(question.rules, bounds)
    return RuleMap([(selector, rulebook.rule_of(rule, bounds)) for selector, rule in question.rules])


def method_asked(question: Question, watch: Watch) -> Method:
    """The method that a question asks for, watched if it is slow. Raises InvalidInput where there is none."""
    if question.layer is not None or question.rules != AUTO:
        what = "layers are" if question.layer is not None else "rules are"
        raise InvalidInput(f"{what} for the method lrp; leave them out with {question.method}")
    method = method_of(question.method)
    assert method is not None
    watched = any(field.name == "progress" for field in fields(method))
    return METHODS[method.name](progress=watch) if watched else method  # type: ignore[call-arg]


def methods_for(model: Any, without: Sequence[str]) -> list[str]:
    """The names of the methods that make sense for a model."""
    parts = model.modules() if isinstance(model, nn.Module) else ()
    maps = any(isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for part in parts)
    return [LRP, *(name for name in METHODS if name not in without and (maps or name != "grad_cam"))]


def presets_of(reader: Reader) -> list[str]:
    """The names of the presets that make sense for a reader's model."""
    model = reader.explainer.model
    parts = model.modules() if isinstance(model, nn.Module) else ()
    recurrent = any(isinstance(part, (nn.RNNBase, nn.RNNCellBase)) for part in parts)
    return rulebook.presets_for(reader.explainer.bounds, recurrent)


def layers_of(model: Any, example: Tensor) -> list[str]:
    """The modules whose output's relevance can be shown, in the order of their calls: blocks, and layers with weights
    other than normalisers, whose output has the relevance of their input."""
    called: dict[str, None] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and len(output) == 1 and output.dim() > 1:
                called[name] = None

        return hook

    handles = []
    try:
        own = rehoused(model)  # hooks on modules that no other thread runs, and not on the user's
        for part, name in named_modules(own):
            if name and _shown(part):
                handles.append(part.register_forward_hook(note(name)))
        with torch.no_grad():
            own(example)
    except Exception as error:  # a model that can't read an empty example still may read what it is asked about
        log.warning("layers can't be chosen, as the model doesn't run on an empty example (%s)", error)
        return []
    finally:  # a model of Keras has no modules of its own
        for handle in handles:
            handle.remove()
    return list(called)


def seen(x: Any, bounds: Bounds | None) -> Image.Image | None:
    """A model's input (1, channels, height, width) as a picture, from the lowest valid value to the highest."""
    if not isinstance(x, Tensor) or x.dim() not in (3, 4) or len(x) != 1:
        return None
    values = x[0].detach().cpu().double()
    if bounds is None:
        return input_picture(values.numpy())
    low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in bounds)
    pixels = ((values - low) / (high - low)).clamp(0, 1).mul(255).round().byte().numpy()
    if pixels.ndim == 3:
        last = pixels.shape[-1] in (1, 3) and pixels.shape[0] not in (1, 3)
        pixels = pixels if last else np.moveaxis(pixels, 0, -1)
        pixels = pixels if pixels.shape[-1] == 3 else pixels.mean(-1).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels))


def _unreadable(asked: Input, readable: Sequence[str]) -> InvalidInput:
    words = {"digit": "drawings", "picture": "pictures", "values": "series of numbers", "text": "texts"}
    kinds = " and ".join(words[kind] for kind in readable)
    return InvalidInput(f"this model reads {kinds}, no {words[asked.given]}; choose another model")


def _shown(module: nn.Module) -> bool:
    normalises = "Norm" in type(module).__name__
    return not normalises and any(True for _ in module.parameters())


def _are_presets(rules: Sequence[Rules]) -> bool:
    return all(isinstance(each, str) for each in rules)


def _name(rules: Rules) -> str:
    """What Explainer.compare calls these rules."""
    return rules if isinstance(rules, str) else str(as_rule_map(rules))
