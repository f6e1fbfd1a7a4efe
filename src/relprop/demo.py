"""The demonstration: digits and photographs under several presets, and reviews by several methods, as reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from PIL import Image
from torch import Tensor

from relprop import zoo
from relprop.explainer import Explainer
from relprop.targets import Target
from relprop.text import TextExplainer
from relprop.view.gallery import Item
from relprop.view.sheet import short_name
from relprop.view.style import PHOTO_CLIP

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

TITLE = {"en": "What the networks looked at", "ko": "신경망은 무엇을 보았나"}
INTRODUCTION = {
    "en": "Each picture was shown to a trained network, and the score of the class it decided for was redistributed, "
    "layer by layer, onto the pixels: Layer-wise Relevance Propagation (LRP). A preset says which rule does so in "
    "which layer; all presets of a picture come from one forward pass. Open a picture to read the relevance of every "
    "pixel.",
    "ko": "학습된 신경망에 그림을 보여 주고, 신경망이 고른 클래스의 점수를 층마다 거슬러 올라가며 픽셀에 나누어 "
    "주었습니다. 이것이 계층별 관련성 전파(LRP)입니다. 프리셋은 어느 층에 어느 규칙을 쓸지를 정하며, 한 그림의 모든 "
    "프리셋은 순전파 한 번에서 나옵니다. 그림을 열면 픽셀마다 관련성 점수를 볼 수 있습니다.",
}
REVIEWS_TITLE = {"en": "The words that were relevant", "ko": "어느 낱말이 결정했나"}
REVIEWS_INTRODUCTION = {
    "en": "Film reviews in two languages, read by three networks. LRP says which words spoke for the decision and "
    "which against it; the gradient only says how strongly the score reacts to a word.",
    "ko": "두 언어로 쓴 영화 리뷰를 세 신경망이 읽었습니다. LRP는 어느 낱말이 결정을 뒷받침하고 어느 낱말이 반대하는지 "
    "말해 줍니다. 기울기는 점수가 낱말에 얼마나 민감한지만 말해 줍니다.",
}
GROUPS = {
    "efficientnet-lite0": {"en": "Photographs: EfficientNet-Lite0", "ko": "사진: EfficientNet-Lite0"},
    "mnist-cnn": {"en": "Digits: a convolutional network", "ko": "숫자: 합성곱 신경망"},
    "mnist-vit": {"en": "Digits: a vision Transformer", "ko": "숫자: 비전 트랜스포머"},
    "mnist-mlp": {"en": "Digits: fully connected layers", "ko": "숫자: 완전 연결 신경망"},
    "reviews-en-transformer": {"en": "English reviews: a Transformer", "ko": "영어 리뷰: 트랜스포머"},
    "reviews-en": {"en": "English reviews: an LSTM", "ko": "영어 리뷰: LSTM"},
    "reviews-ko": {"en": "Korean reviews: an LSTM", "ko": "한국어 리뷰: LSTM"},
}
_LANGUAGE_NAMES = {"en": {"en": "English", "ko": "영어"}, "ko": {"en": "Korean", "ko": "한국어"}}


def photographs() -> Iterator[Item]:
    """The zoo's photographs, explained for what EfficientNet-Lite0 sees in them. Raises MissingExtra."""
    model = "efficientnet-lite0"
    pictures, entry, explainer = zoo.photos(), zoo.picture_entry(model), _explainer(model)
    for name, picture in pictures.items():
        compared = explainer.compare(entry.preprocess(picture), PRESETS[model])
        seen = next(iter(compared.values())).label(0)
        heading = {"en": f"A photograph ({name}), seen as {seen}", "ko": f"사진 ({name}), 모델의 답은 {seen}"}
        yield Item(
            heading, compared, model, group=GROUPS[model], picture=entry.display(picture), claim=seen, clip=PHOTO_CLIP
        )


def digits(model: str) -> Iterator[Item]:
    """One handwritten digit of each class, the first in the zoo, explained for the digit that `model` reads."""
    explainer = _explainer(model)
    images, _ = zoo.digits()
    for digit in range(10):
        x = images[10 * digit : 10 * digit + 1]
        compared = explainer.compare(x, PRESETS[model])
        read = next(iter(compared.values())).label(0)
        heading = {"en": f"A handwritten {digit}, read as {read}", "ko": f"손글씨 {digit}, 모델의 답은 {read}"}
        claim = {"en": f"the digit {read}", "ko": f"숫자 {read}"}
        yield Item(heading, compared, model, group=GROUPS[model], truth=digit, picture=_digit(x), claim=claim)


def mistake() -> Iterator[Item]:
    """The digit that mnist-mlp misreads: what speaks for its answer, for the truth, for the one over the other."""
    model = "mnist-mlp"
    explainer = _explainer(model)
    images, labels = zoo.digits()
    x, truth = images[MISREAD : MISREAD + 1], int(labels[MISREAD])
    read = int(explainer(x).target[0])

    def margin(scores: Tensor) -> Tensor:
        return scores[:, read] - scores[:, truth]

    questions: Sequence[tuple[dict[str, str], Target]] = (
        ({"en": f"the digit {read}", "ko": f"숫자 {read}"}, read),
        ({"en": f"the digit {truth}", "ko": f"숫자 {truth}"}, truth),
        ({"en": f"{read} rather than {truth}", "ko": f"{truth} 대신 {read}"}, margin),
    )
    for claim, target in questions:
        counted = truth if target == read else None  # the picture is one answer, though asked about three times
        heading = {
            "en": f"A mistake: {truth}, read as {read}. What speaks for {claim['en']}?",
            "ko": f"틀린 예: 정답은 {truth}, 모델의 답은 {read}. {claim['ko']}의 근거는?",
        }
        compared = explainer.compare(x, PRESETS[model], target)
        yield Item(heading, compared, model, group=GROUPS[model], truth=counted, picture=_digit(x), claim=claim)


def reviews(name: str) -> Iterator[Item]:
    """The zoo's reviews in the language of this model, each explained by several methods, LRP first.

    Raises MissingExtra.
    """
    model, entry = zoo.load(name), zoo.text_entry(name)
    explainer = TextExplainer(model, entry.tokenizer, labels=entry.labels)
    texts = [text for written_in, text in zoo.reviews() if written_in == entry.language]
    for number, text in enumerate(texts, start=1):
        heading = {
            "en": f"{_LANGUAGE_NAMES[entry.language]['en']} review {number}",
            "ko": f"{_LANGUAGE_NAMES[entry.language]['ko']} 리뷰 {number}",
        }
        compared = explainer.compare(text, methods=METHODS)
        named = {short_name(each.rules, each.method): each for each in compared.values()}
        yield Item(heading, named, name, group=GROUPS[name], language=entry.language)


def _explainer(model: str) -> Explainer:
    return Explainer(zoo.load(model), bounds=zoo.picture_entry(model).bounds)


def _digit(x: Tensor) -> Image.Image:
    """The pixels (1, 1, 28, 28) in [-1, 1] as a picture."""
    return Image.fromarray(((x[0, 0] + 1) * 127.5).round().byte().numpy())
