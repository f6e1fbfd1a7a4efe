"""What can be asked: the bodies of requests, checked, and their mistakes told in sentences."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from relprop.app.refusals import Refused
from relprop.rulebook import LONGEST

BYTES = 20_000_000  # of a picture's file
PIXELS = 40_000_000
CHARACTERS = 5_000
QUESTIONS = 12
BODY = 1_000_000  # bytes of any other request
ROWS = 50  # of a rule map
VALUES = 50_000  # of a series
DIGIT = 28 * 28
MISTAKES = 1_000  # beyond which none is told apart, as that would take seconds

LIMITS = {"bytes": BYTES, "pixels": PIXELS, "characters": CHARACTERS, "questions": QUESTIONS}

Name = Annotated[str, Field(max_length=LONGEST)]
Row = tuple[Name, Name]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-3e38, le=3e38)]
# Each ends at its first mistake: there could be as many as numbers.
Numbers = Annotated[list[Number], Field(fail_fast=True)]
Values = Numbers | Annotated[list[Numbers], Field(fail_fast=True)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Input(_Body):
    """What is explained: a drawing (784 bytes in base64), a picture that the server has, a text, or a series."""

    digit: Annotated[str, Field(max_length=2 * DIGIT)] | None = None
    picture: Annotated[str, Field(max_length=100)] | None = None
    text: str | None = None
    values: Values | None = None

    @property
    def given(self) -> str:
        """Which of them."""
        return next(name for name in Input.model_fields if getattr(self, name) is not None)

    @property
    def drawing(self) -> bytes:
        """The drawing, 28 x 28 bytes, 0 being background and 255 ink."""
        return base64.b64decode(self.digit or "")

    @model_validator(mode="after")
    def _one(self) -> Input:
        given = [name for name in Input.model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of digit, picture, text and values; got {' and '.join(given) or 'none'}")
        return self

    @field_validator("digit")
    @classmethod
    def _whole(cls, digit: str | None) -> str | None:
        try:
            size = DIGIT if digit is None else len(base64.b64decode(digit, validate=True))
        except (binascii.Error, ValueError):
            raise ValueError("the drawing is not in base64") from None
        if size != DIGIT:
            raise ValueError(f"the drawing has {size} bytes, expected {DIGIT}, one for each of 28 x 28 pixels")
        return digit

    @field_validator("text")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        if text is None:
            return text
        if len(text) > CHARACTERS:
            raise ValueError(f"the text has {len(text):,} characters, and {CHARACTERS:,} are read at most; shorten it")
        if not any(letter.isprintable() and not letter.isspace() for letter in text):
            raise ValueError("there is no text to explain; write a sentence")
        return text

    @field_validator("values")
    @classmethod
    def _even(cls, values: Values | None) -> Values | None:
        if values is None:
            return values
        rows: list[Any] = values if isinstance(values[0] if values else None, list) else [values]
        if not rows[0] or len({len(row) for row in rows}) > 1:
            raise ValueError("values: write one row of numbers for each channel, all of one length")
        if sum(map(len, rows)) > VALUES:
            raise ValueError(f"a series has {VALUES:,} values at most")
        return values


class Question(_Body):
    """How it is explained: a method; for LRP a preset or a rule map of rows (selector, rule), and a layer."""

    method: Name = "lrp"
    rules: Name | Annotated[list[Annotated[Row, Field(strict=False)]], Field(min_length=1, max_length=ROWS)] = "auto"
    layer: Name | None = None


class _Asked(_Body):
    model: Name
    input: Input
    target: Annotated[int, Field(ge=-(2**31), lt=2**31)] | Name | None = None


class Explain(_Asked):
    """The body of /api/explain."""

    questions: Annotated[
        tuple[Question, ...], Field(min_length=1, max_length=QUESTIONS, strict=False, fail_fast=True)
    ] = (Question(),)


class Single(_Asked):
    """The body of /api/operations and /api/download."""

    question: Question = Question()


Kind = Literal["png", "svg", "html", "npz"]
B = TypeVar("B", bound=_Asked)

_EXPECTED = {
    "model": "the name of a model",
    "input": "one of digit, picture, text and values",
    "digit": f"{DIGIT} bytes in base64",
    "picture": "the name of a picture that was uploaded, or of a sample",
    "text": "a text",
    "values": f"up to {VALUES:,} finite numbers, in a list, or one list for each channel",
    "target": "the index of a class, or its name",
    "questions": f"1 to {QUESTIONS} questions",
    "question": "a question, with method, rules and layer",
    "method": "the name of a method",
    "rules": f"the name of a preset, or 1 to {ROWS} rows of a selector and a rule",
    "layer": "the name of a layer",
}


def read(kind: type[B], body: bytes) -> B:
    """A request's body. Raises Refused with a sentence that says what is wrong in it."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        count = error.error_count()
        if count > MISTAKES:
            raise Refused(422, "invalid_request", f"The request has {count:,} mistakes.", mistakes=count) from None
        mistake = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise Refused(422, "invalid_request", _told(mistake), mistakes=count) from None


def _told(mistake: Any) -> str:
    """A mistake that pydantic found, as a sentence."""
    kind, message = mistake["type"], str(mistake["msg"]).removeprefix("Value error, ")
    path = [str(each)[:60] for each in mistake["loc"]]
    if kind == "json_invalid":
        return f"The request is no JSON: {message.removeprefix('Invalid JSON: ')[:200]}."
    if kind == "extra_forbidden":
        return f"There is no field {_quoted(path)} in a request."
    if kind == "value_error":
        return f"{message[:1].upper()}{message[1:]}."
    known = [place for place, name in enumerate(path) if name in _EXPECTED]
    if not known:
        return "A request is an object with model, input and target."
    return f"The field {_quoted(path[: known[-1] + 1])} is not what is expected there: {_EXPECTED[path[known[-1]]]}."


def _quoted(path: list[str]) -> str:
    return json.dumps(".".join(path), ensure_ascii=False)
