"""What the server says when it can't answer: a status, a code for programs, a sentence for people."""

from __future__ import annotations

import re
from typing import Any

from relprop.errors import MissingExtra, RelpropError


class Refused(Exception):
    """A request that is not answered; `code` names the reason, `sentence` tells it."""

    def __init__(self, status: int, code: str, sentence: str, **details: Any) -> None:
        super().__init__(sentence)
        self.status, self.code, self.sentence, self.details = status, code, sentence, details

    @property
    def told(self) -> dict[str, Any]:
        """The body of the answer."""
        return {"error": self.sentence, "code": self.code, "details": self.details}


class Gone(Exception):
    """Whoever asked has left, and nobody will read an answer."""


def refusal(error: RelpropError) -> Refused:
    """How an error of relprop's is told; its code is its name, as "invalid_target"."""
    code = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
    return Refused(501 if isinstance(error, MissingExtra) else 422, code, sentence(error))


def sentence(error: RelpropError) -> str:
    """An error's message as a sentence."""
    text = " ".join(str(error).split())
    ended = text if text.endswith((".", "?", "!")) else f"{text}."
    return ended[:1].upper() + ended[1:]
