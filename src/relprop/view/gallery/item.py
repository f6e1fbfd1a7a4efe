"""What stands in a report: an input with its explanations, and the figures of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from relprop.errors import InvalidInput
from relprop.targets import class_scores
from relprop.view.gallery.words import Words, in_language

if TYPE_CHECKING:
    from relprop.attribution import Attribution
    from relprop.text import TextAttribution

    Explanation = Attribution | TextAttribution

LARGE = 64  # pixels a side; larger pictures get larger tiles
LITTLE = 0.05  # of the score: where less arrives, the sum of the map says little; as in the viewer


@dataclass(frozen=True, eq=False)
class Item:
    """One input of a report, and its explanations: of the same score, by one model.

    Attributes:
        name: what stands above it, as a file's name; {"en": ..., "ko": ...} where it differs by language.
        explanations: by the name that stands below each, as `Explainer.compare` returns them; each of one sample.
        model: the name of the model.
        truth: the class that is right, by index or name, if it is known.
        picture: what the model saw; by default the input, drawn from its least value to its greatest.
        group: the heading that it stands under with others; the model by default.
        clip: the percentile of |R| that gets full colour, as for `Attribution.to_pil`; the largest |R| by default.
        language: of a text, as in ISO 639-1: "en", "ko".
        claim: what was explained, in words; by default the class, or what the explanation says.
    """

    name: Words
    explanations: Mapping[str, Explanation]
    model: str = ""
    truth: int | str | None = None
    picture: Image.Image | None = None
    group: Words = ""
    clip: float | None = None
    language: str = ""
    claim: Words = ""

    def __post_init__(self) -> None:
        if not self.explanations:
            raise InvalidInput(f"{in_language(self.name, 'en')!r} has no explanation; give at least one")
        for title, each in self.explanations.items():
            if len(each.score) != 1:
                raise InvalidInput(
                    f"the explanation {title!r} of {in_language(self.name, 'en')!r} is of {len(each.score)} samples; "
                    "give a report one at a time, as attribution[0]"
                )

    @property
    def first(self) -> Explanation:
        """The first of the explanations."""
        return next(iter(self.explanations.values()))


@dataclass(frozen=True)
class Figures:
    """What one explanation comes to.

    `absorbed` says by cause where score - total went; None where that was not examined. `redistributes`: whether the
    method redistributes the score, so that the relevance is meant to sum to it. `signed`: whether it speaks for and
    against. `limit`: the |R| of full colour.
    """

    title: str
    method: str
    rules: str
    score: float
    total: float
    absorbed: Mapping[str, float] | None
    redistributes: bool
    signed: bool
    limit: float

    @property
    def difference(self) -> float:
        """score - total."""
        return self.score - self.total

    @property
    def little_arrived(self) -> bool:
        """Whether a method that redistributes the score brings next to nothing of it to the input."""
        return self.redistributes and abs(self.total) < LITTLE * abs(self.score)


@dataclass(frozen=True)
class Entry:
    """What a report says of one input.

    `answer`: the class of the highest score, where the model has classes. `kind`: "picture", "series" or "text".
    `large`: whether it is a picture of many pixels.
    """

    name: Words
    group: Words
    model: str
    explained: Words
    answer: str | None
    truth: str | None
    figures: tuple[Figures, ...]
    kind: str
    large: bool = False
    notes: tuple[str, ...] = ()

    @property
    def right(self) -> bool | None:
        """Whether the model's answer is the truth; None where one of them is unknown."""
        return None if self.answer is None or self.truth is None else self.answer == self.truth

    @property
    def under(self) -> str:
        """The group, in one language."""
        return in_language(self.group, "en")

    @property
    def label(self) -> str:
        """The class that it is filtered by: the model's answer, else what was explained."""
        return self.answer if self.answer is not None else in_language(self.explained, "en")


@dataclass(frozen=True)
class Balance:
    """The means over all explanations that one method made in a group.

    `score`, `total` and `difference` are means of the score, of the sum of relevance and of |score - sum|; `absorbed`
    is the mean of what each cause took up, None where that was not examined.
    """

    group: Words
    title: str
    count: int
    score: float
    total: float
    difference: float
    absorbed: Mapping[str, float] | None
    redistributes: bool


def balances(entries: Sequence[Entry]) -> list[Balance]:
    """The means of each method in each group, in the order of their first appearance."""
    groups: dict[str, Words] = {}
    collected: dict[tuple[str, str], list[Figures]] = {}
    for entry in entries:
        groups.setdefault(entry.under, entry.group)
        for each in entry.figures:
            collected.setdefault((entry.under, each.title), []).append(each)
    return [_balance(groups[under], title, figures) for (under, title), figures in collected.items()]


def _balance(group: Words, title: str, figures: Sequence[Figures]) -> Balance:
    count = len(figures)
    examined = [each.absorbed for each in figures if each.absorbed is not None]
    absorbed: dict[str, float] = {}
    for each in examined:
        for cause, amount in each.items():
            absorbed[cause] = absorbed.get(cause, 0.0) + amount / count
    return Balance(
        group,
        title,
        count,
        sum(each.score for each in figures) / count,
        sum(each.total for each in figures) / count,
        sum(abs(each.difference) for each in figures) / count,
        absorbed if len(examined) == count else None,
        all(each.redistributes for each in figures),
    )


def entry_of(item: Item, sheets: Mapping[str, Mapping[str, Any]]) -> Entry:
    """The figures of an item, whose explanations are drawn by `sheets`."""
    first, labels = item.first, item.first.labels
    told = next(iter(sheets.values()))
    answer = _answer(first.output)
    return Entry(
        name=item.name,
        group=item.group or item.model,
        model=item.model,
        explained=item.claim or (told["target"] or {}).get("name") or told["claim"],
        answer=None if answer is None else class_name(answer, labels),
        truth=None if item.truth is None else class_name(item.truth, labels),
        kind=told["kind"],
        large=told["kind"] == "picture" and max(told["heat"]["width"], told["heat"]["height"]) > LARGE,
        figures=tuple(_figures(title, each, sheets[title]) for title, each in item.explanations.items()),
        notes=tuple(dict.fromkeys(note for each in item.explanations.values() for note in each.notes)),
    )


def class_name(index: int | str, labels: Sequence[str] | None) -> str:
    """The name of a class, or its number where there is no name. Raises InvalidInput for one there isn't."""
    if isinstance(index, str) and (labels is None or index in labels):
        return index
    try:
        place = int(index)
    except ValueError:
        place = -1
    if place < 0 or (labels is not None and place >= len(labels)):
        known = "" if labels is None else f"; the classes are {', '.join(labels[:_NAMED])}"
        raise InvalidInput(f"the truth {index!r} is none of the model's classes{known}")
    return str(place) if labels is None else labels[place]


_NAMED = 12  # classes that a message lists


def _answer(output: Any) -> int | None:
    """The class of the highest score, where the model returned one score for each of several classes."""
    scores = class_scores(output)
    return None if scores is None or len(scores) < 2 else int(scores.argmax())


def _figures(title: str, explanation: Explanation, told: Mapping[str, Any]) -> Figures:
    whole: Any = getattr(explanation, "attribution", explanation)
    examined = told["redistributes"] and whole.known_operations is not None
    return Figures(
        title,
        told["method"],
        whole.rules,
        told["score"],
        told["total"],
        told["absorbed"] if examined else None,
        told["redistributes"],
        told["signed"],
        told["limit"],
    )
