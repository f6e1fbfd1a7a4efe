"""What an attribution method is: a name, its options, and how it makes relevance from scores and gradients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor

from relprop.errors import InvalidInput
from relprop.methods.evaluation import Evaluation


@dataclass(frozen=True, eq=False)
class Method(ABC):
    """An attribution method with its options; `explain` may be called many times."""

    name: ClassVar[str]
    hooks: ClassVar[bool] = False  # whether it sets hooks on the model's modules, which other threads would meet

    @abstractmethod
    def explain(self, evaluation: Evaluation) -> list[Tensor]:
        """The relevance of each explained input, in the order of `evaluation.facts.used`."""

    def __str__(self) -> str:
        options = [(f.name, getattr(self, f.name)) for f in fields(self) if f.repr]
        listed = ", ".join(f"{name}={_shown(value)}" for name, value in options if value is not None)
        return f"{self.name} ({listed})" if listed else self.name


def require_count(method: str, option: str, value: Any, example: int) -> None:
    """InvalidInput unless the option is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInput(f"{method}: got {option}={value!r}, expected a whole number from 1, such as {example}")


def require_number(method: str, option: str, value: Any, example: float) -> None:
    """InvalidInput unless the option is a finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InvalidInput(f"{method}: got {option}={value!r}, expected a number from 0, such as {example}")


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.item():g}" if value.dim() == 0 else f"tensor of shape {tuple(value.shape)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(map(_shown, value)) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)
