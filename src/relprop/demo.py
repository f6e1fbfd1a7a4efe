"""The demonstration: digits and photographs under several presets, and reviews by several methods, as pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from relprop import zoo
from relprop.attribution import Attribution
from relprop.cli.console import causes
from relprop.explainer import Explainer
from relprop.targets import Target
from relprop.text import TextAttribution, TextExplainer
from relprop.view.files import write_whole
from relprop.view.legend import Legend, number
from relprop.view.page import Picture, Section, page

# A flat first layer makes every pixel of a fully connected network equal, so the MLP is shown without one.
PRESETS: Mapping[str, tuple[str, ...]] = {
    "mnist-mlp": ("epsilon", "gamma", "epsilon-gamma-box", "deep-taylor"),
    "mnist-cnn": ("epsilon", "epsilon-plus-flat", "epsilon-gamma-box", "deep-taylor"),
    "mnist-vit": ("attn-lrp-vit", "attn-lrp", "cp-lrp"),
    "efficientnet-lite0": ("epsilon-plus-flat", "epsilon-gamma-box", "epsilon-alpha2-beta1-flat", "epsilon"),
}
REVIEWS = ("reviews-en-transformer", "reviews-en", "reviews-ko")
METHODS = ("lrp", "gradient")
MISREAD = 89  # the one of the zoo's hundred digits that mnist-mlp misreads
CLIP = 99.5  # percentile of |relevance| with full colour in photographs, where few pixels have most of it

INTRODUCTION = (
    "Each picture was shown to a trained network, and the score of the class it decided for was redistributed, layer "
    "by layer, onto the pixels (Layer-wise Relevance Propagation). Red pixels speak for the class, blue ones against "
    "it. A preset says which rule does so in which layer; all presets of a picture come from one forward pass. Where "
    "the sum of relevance is not the score, the rest was taken up inside the network, as stated below each heatmap."
)


@dataclass(frozen=True, eq=False)
class Case:
    """One picture, explained for one score by one model; `compared` are the presets' explanations of it.

    `picture` is what the model saw, `claim` what positive relevance speaks for, `clip` the percentile of |relevance|
    that gets full colour (None: the largest).
    """

    heading: str
    model: str
    picture: Image.Image
    claim: str
    compared: Mapping[str, Attribution]
    clip: float | None = None

    @property
    def first(self) -> Attribution:
        """The explanation under the first preset."""
        return next(iter(self.compared.values()))


def photographs() -> Iterator[Case]:
    """The zoo's photographs, explained for what EfficientNet-Lite0 sees in them. Raises MissingExtra."""
    model = "efficientnet-lite0"
    pictures, entry, explainer = zoo.photos(), zoo.picture_entry(model), _explainer(model)
    for name, picture in pictures.items():
        compared = explainer.compare(entry.preprocess(picture), PRESETS[model])
        seen = next(iter(compared.values())).label(0)
        yield Case(f"A photograph ({name}), seen as {seen}", model, entry.display(picture), seen, compared, CLIP)


def digits(model: str) -> Iterator[Case]:
    """One handwritten digit of each class, the first in the zoo, explained for the digit that `model` reads."""
    explainer = _explainer(model)
    images, _ = zoo.digits()
    for digit in range(10):
        x = images[10 * digit : 10 * digit + 1]
        compared = explainer.compare(x, PRESETS[model])
        read = next(iter(compared.values())).label(0)
        yield Case(f"A handwritten {digit}, read as {read}", model, _digit(x), f"the digit {read}", compared)


def mistake() -> Iterator[Case]:
    """The digit that mnist-mlp misreads: what speaks for its answer, for the truth, for the one over the other."""
    explainer = _explainer("mnist-mlp")
    images, labels = zoo.digits()
    x, truth = images[MISREAD : MISREAD + 1], int(labels[MISREAD])
    read = int(explainer(x).target[0])

    def margin(scores: Tensor) -> Tensor:
        return scores[:, read] - scores[:, truth]

    questions: Sequence[tuple[str, Target]] = (
        (f"the digit {read}", read),
        (f"the digit {truth}", truth),
        (f"{read} rather than {truth}", margin),
    )
    for claim, target in questions:
        heading = f"A mistake: {truth}, read as {read}. What speaks for {claim}?"
        yield Case(heading, "mnist-mlp", _digit(x), claim, explainer.compare(x, PRESETS["mnist-mlp"], target))


def reviews(name: str) -> Iterator[tuple[TextAttribution, ...]]:
    """The zoo's reviews in the language of this model, each explained by several methods, LRP first.

    Raises MissingExtra.
    """
    model, entry = zoo.load(name), zoo.text_entry(name)
    explainers = [TextExplainer(model, entry.tokenizer, method=method, labels=entry.labels) for method in METHODS]
    for written_in, text in zoo.reviews():
        if written_in == entry.language:
            # All methods explain the class that the model decided for.
            first = explainers[0](text)
            decided = None if first.target is None else int(first.target[0])
            yield (first, *(explainer(text, decided) for explainer in explainers[1:]))


def write_page(cases: Sequence[Case], path: Path) -> None:
    """Writes the cases as one HTML file without scripts that fetches nothing. Raises InvalidFile."""
    shown: set[str] = set()
    sections = []
    for case in cases:
        sections.append(_section(case, legend=case.model not in shown))
        shown.add(case.model)
    write_whole(path, page("relprop: what the networks looked at", sections, INTRODUCTION).encode())


def _section(case: Case, legend: bool) -> Section:
    return Section(
        heading=case.heading,
        picture=Picture(case.picture, "what the network saw", f"{case.heading}: the picture"),
        facts=[("model", case.model), ("explained", case.claim), ("score", number(float(case.first.score[0])))],
        heatmaps=[_heatmap(case, preset, each) for preset, each in case.compared.items()],
        legend=Legend("what is explained", None, clip=case.clip) if legend else None,
    )


def _heatmap(case: Case, preset: str, attribution: Attribution) -> Picture:
    balance = attribution.conservation
    lost = causes(balance.absorbed, balance.difference)
    caption = f"{preset}: sum {number(balance.relevance)}; not passed to the input: {lost}"
    alt = f"Heatmap of the relevance for {case.claim} under the preset {caption}"
    return Picture(attribution.to_pil(0, scale=1, clip=case.clip), caption, alt)


def _explainer(model: str) -> Explainer:
    return Explainer(zoo.load(model), bounds=zoo.picture_entry(model).bounds)


def _digit(x: Tensor) -> Image.Image:
    """The pixels (1, 1, 28, 28) in [-1, 1] as a picture."""
    return Image.fromarray(((x[0, 0] + 1) * 127.5).round().byte().numpy())
