"""What is explained of a text by a Hugging Face model: which score its head gives, and how that is called."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from relprop.errors import InvalidTarget
from relprop.models.huggingface import head_name, is_huggingface
from relprop.targets import Answer, At, Choice, Contrast, Target, indices
from relprop.text.encoding import Encoding
from relprop.text.tokens import decoded, places_of, shown_at, token_id

if TYPE_CHECKING:
    from relprop.text.reading import Reading

LONGEST_ANSWER = 15  # tokens, as in transformers' pipeline
_AGAINST_WHAT = "contrast: say against what, as relprop.targets.contrast(None, against)"
OUTSIDE = "O"  # the label of what is none of the things that a token classifier tells


class Head(enum.Enum):
    """What a model scores: the text, two edges of an answer, each token, a masked word, what comes next."""

    CLASSES = enum.auto()
    ANSWER = enum.auto()
    LABELS = enum.auto()
    MASKED = enum.auto()
    NEXT = enum.auto()
    DECODER = enum.auto()


@dataclass(frozen=True)
class Asked:
    """The score to explain, and how it is called.

    Attributes:
        target: for relprop.explain.
        claim: what positive relevance speaks for; "" where a class's name says it.
        continuation: what a language model writes next.
        continues_at: the place in the text that it follows on.
    """

    target: Target
    claim: str = ""
    continuation: str = ""
    continues_at: int = 0


def head_of(model: Any) -> Head:
    """What a model scores. Models of unknown kinds count as classifiers of the whole text."""
    if not is_huggingface(model):
        return Head.CLASSES
    names = head_name(model)
    told = {
        "QuestionAnswering": Head.ANSWER,
        "TokenClassification": Head.LABELS,
        "MaskedLM": Head.MASKED,
        "SequenceClassification": Head.CLASSES,
    }
    for part, head in told.items():
        if part in names:
            return head
    if getattr(model, "can_generate", bool)():
        return Head.DECODER if model.config.is_encoder_decoder else Head.NEXT
    return Head.CLASSES


def asked(reading: Reading, target: Target) -> Asked:
    """The target as relprop.explain takes it: words as places, tokens as ids, the default as what the model says."""
    head = head_of(reading.model)
    if _is_function(target) or (isinstance(target, Contrast) and any(map(_is_function, _sides(target)))):
        return Asked(target)
    if head is Head.CLASSES:
        return _of_classes(reading, target)
    if head is Head.ANSWER:
        return _of_answer(reading, target)
    return _of_positions(reading, head, target)


def _is_function(target: Any) -> bool:
    return callable(target) and not isinstance(target, (Tensor, Choice))


def _sides(target: Contrast) -> tuple[Target, Target]:
    return target.target, target.against


# The whole text


def _of_classes(reading: Reading, target: Target) -> Asked:
    if not isinstance(target, Contrast) or any(isinstance(side, Choice) for side in _sides(target)):
        return Asked(target)
    mine, other = _sides(target)
    if mine is None:
        mine = int(_scores(reading).argmax())
    names = [reading.labels[each] if reading.labels and isinstance(each, int) else str(each) for each in (mine, other)]
    _require_different(*names)
    return Asked(Contrast(mine, other), f"{names[0]} rather than {names[1]}")


def _require_different(mine: str, other: str) -> None:
    if mine == other:
        raise InvalidTarget(f"{mine!r} is what is explained already; give another to compare it with")


# An answer


def _of_answer(reading: Reading, target: Target) -> Asked:
    if target is None:
        found = Answer(*_best_span(reading))
    elif isinstance(target, str):
        places = places_of(reading.encoding, target, start=reading.second)
        found = Answer(places[0], places[-1])
    elif isinstance(target, Answer):
        found = Answer(_edge(reading, target.start, 0), _edge(reading, target.end, -1))
    elif isinstance(target, Contrast):
        if target.against is None:
            raise InvalidTarget(_AGAINST_WHAT)
        mine, other = (_of_answer(reading, side) for side in _sides(target))
        _require_different(mine.claim, other.claim)
        return Asked(Contrast(mine.target, other.target), f"{mine.claim} rather than {other.claim}")
    else:
        raise InvalidTarget(
            f"got {target!r} as the target of question answering; expected the answer as text, "
            "relprop.targets.answer(start, end), or None for the model's own"
        )
    return Asked(found, _claim_of(reading, found))


def _best_span(reading: Reading) -> tuple[int, int]:
    """The places of the first and the last token of the answer with the highest score."""
    output = reading.output
    inside = [place for place, segment in enumerate(reading.made.segments or ()) if segment == 1]
    spans = [(start, end) for start in inside for end in inside if start <= end < start + LONGEST_ANSWER]
    if not hasattr(output, "start_logits"):
        raise InvalidTarget(
            f"{type(reading.model).__name__} returns no start_logits, so it finds no answer in a context; give a "
            "function as target, for example target=lambda output: output[0][:, 3]"
        )
    if not spans:
        raise InvalidTarget("no token of the context was read, so there is no answer in it; shorten the question")
    starts, ends = output.start_logits[0].double().tolist(), output.end_logits[0].double().tolist()
    return max(spans, key=lambda span: starts[span[0]] + ends[span[1]])


def _edge(reading: Reading, given: int | str | None, which: int) -> int | None:
    """The place of a token that is given by its place or its word."""
    if isinstance(given, str):
        return places_of(reading.encoding, given, start=reading.second)[which]
    return None if given is None else _in_range(reading, given)


def _claim_of(reading: Reading, found: Answer) -> str:
    if isinstance(found.start, int) and isinstance(found.end, int):
        return f'the answer "{shown_at(reading.encoding, found.start, found.end)}"'
    for edge, place in (("start", found.start), ("end", found.end)):
        if isinstance(place, int):
            return f'the {edge} of the answer at "{shown_at(reading.encoding, place)}"'
    return ""


# Scores at positions


@dataclass(frozen=True)
class _Place:
    """A score at a position: of a label, or of a token."""

    position: int
    index: int
    name: str


def _of_positions(reading: Reading, head: Head, target: Target) -> Asked:
    mine, other = _sides(target) if isinstance(target, Contrast) else (target, None)
    first = _found(reading, head, mine, None)
    if not isinstance(target, Contrast):
        return _called(reading, head, At(first.position, first.index), first, None)
    if other is None:
        raise InvalidTarget(_AGAINST_WHAT)
    second = _found(reading, head, other, first.position)
    if (first.position, first.index) == (second.position, second.index):
        _require_different(first.name, second.name)
    both = Contrast(At(first.position, first.index), At(second.position, second.index))
    return _called(reading, head, both, first, second)


def _called(reading: Reading, head: Head, target: Target, first: _Place, second: _Place | None) -> Asked:
    """The target with its name."""
    encoding = reading.encoding
    if head in (Head.LABELS, Head.MASKED):
        join, quote = ("of", "") if head is Head.LABELS else ("at", '"')
        claims = [
            f'{quote}{each.name}{quote} {join} "{shown_at(encoding, each.position)}"'
            for each in (first, second)
            if each is not None
        ]
        return Asked(target, " rather than ".join(claims))
    last = len(encoding) - 1 if head is Head.DECODER else first.position
    end = max(end for _, end in encoding.offsets[: last + 1])
    after = "" if end == len(encoding.text) else f' after "{_end_of(encoding, last)}"'
    against = "" if second is None else f' rather than "{second.name}"'
    told = "" if second is None else f" (rather than {second.name.strip()})"
    return Asked(target, f'"{first.name}" as the next token{after}{against}', f"{first.name.strip()}{told}", end)


def _end_of(encoding: Encoding, place: int) -> str:
    """The word that a token is part of, up to its end."""
    same = [span for span, word in zip(encoding.offsets, encoding.words, strict=True) if word == encoding.words[place]]
    text = encoding.text[min(start for start, _ in same) : encoding.offsets[place][1]].strip()
    return encoding.tokens[place] if encoding.special[place] or not text else text


def _found(reading: Reading, head: Head, target: Target, position: int | None) -> _Place:
    """The position and the index that are meant; `position` is that of the score it is compared with."""
    if isinstance(target, At):
        position, target = _position(reading, head, target), target.target
    elif isinstance(target, Choice):
        raise InvalidTarget(
            f"{target!r} is no score of {type(reading.model).__name__}; give a target of relprop.targets.at"
        )
    label_of, id_of = _by_labels(reading) if head is Head.LABELS else _by_tokens(reading)
    index = None if target is None else id_of(target)
    if position is None:
        position, index = _default(reading, head, index)
    if index is None:
        index = int(_scores(reading)[position].argmax())
    return _Place(position, index, label_of(index))


def _scores(reading: Reading) -> Tensor:
    """(positions, classes), or (classes,) for the text as a whole: what the model gives."""
    scores = getattr(reading.output, "logits", reading.output)
    if not isinstance(scores, Tensor):
        raise InvalidTarget(
            f"{type(reading.model).__name__} returns a {type(scores).__name__} without logits, so what it says itself "
            "can't be told; give a function as target, for example target=lambda output: output[0][:, 3]"
        )
    return scores[0]


def _by_labels(reading: Reading) -> tuple[Callable[[int], str], Callable[[Any], int]]:
    """(name of a label, index of a label)."""
    labels = reading.labels or ()

    def index(target: Any) -> int:
        return int(indices(target, _scores(reading)[:1].detach(), reading.labels)[0])

    return (lambda place: labels[place] if place < len(labels) else f"label {place}"), index


def _by_tokens(reading: Reading) -> tuple[Callable[[int], str], Callable[[Any], int]]:
    """(name of a token, id of a token)."""
    return (lambda id_: decoded(reading.tokenizer, id_)), (lambda target: token_id(reading.tokenizer, target))


def _position(reading: Reading, head: Head, target: At) -> int | None:
    """The position that is asked for; for a decoder always its last."""
    given = target.position
    if head is Head.DECODER:
        if given != -1:
            raise InvalidTarget(
                f"position {given!r}: what comes next is explained after what the decoder wrote so far; give that as "
                '{"text": ..., "prefix": ...}'
            )
        return -1
    if isinstance(given, str):
        return places_of(reading.encoding, given)[-1 if head is Head.NEXT else 0]
    return _in_range(reading, given)


def _in_range(reading: Reading, given: Any) -> int:
    """The place of a token, counted from the start."""
    size = len(reading.encoding)
    if isinstance(given, bool) or not isinstance(given, int) or not -size <= given < size:
        raise InvalidTarget(f"there is no position {given!r}: the text has {size} tokens, 0 to {size - 1}, see .tokens")
    return given % size


def _default(reading: Reading, head: Head, index: int | None) -> tuple[int, int | None]:
    """Where no position is given: the end, the mask, or the token that a label is given to."""
    encoding = reading.encoding
    if head is Head.DECODER:
        return -1, index
    if head is Head.NEXT:
        return len(encoding) - 1, index
    if head is Head.MASKED:
        return _mask(reading), index
    scores = _scores(reading).clone()
    scores[torch.tensor(encoding.special)] = -torch.inf
    if index is None:
        scores[:, [place for place, label in enumerate(reading.labels or ()) if label == OUTSIDE]] = -torch.inf
        return divmod(int(scores.argmax()), scores.shape[1])
    return int(scores[:, index].argmax()), index


def _mask(reading: Reading) -> int:
    """The place of the mask. Raises InvalidTarget where there is none, or several."""
    id_ = getattr(reading.tokenizer, "mask_token_id", None)
    found = [place for place, each in enumerate(reading.encoding.ids) if each == id_]
    if len(found) == 1:
        return found[0]
    mask = getattr(reading.tokenizer, "mask_token", None) or "the model's mask"
    if not found:
        raise InvalidTarget(f"the text has no {mask}; write it in place of the word that is to be explained")
    raise InvalidTarget(
        f"the text has {len(found)} of {mask}; say which: target=relprop.targets.at({found[0]}), or one of "
        f"{', '.join(map(str, found[1:]))}"
    )
