"""Bringing models in: from arrays, scikit-learn, Keras and files. Wrappers go; what can't be traced is refused."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from relprop.models.sequential import Conv, Linear, sequential

if TYPE_CHECKING:
    from relprop.models.forward import ForwardReport, check_forward
    from relprop.models.keras import load_keras
    from relprop.models.program import load_program
    from relprop.models.recurrent import RecurrentNetwork, gru, lstm
    from relprop.models.scikit import from_sklearn

__all__ = [
    "Conv",
    "ForwardReport",
    "Linear",
    "RecurrentNetwork",
    "check_forward",
    "from_sklearn",
    "gru",
    "load_keras",
    "load_program",
    "lstm",
    "sequential",
]

# Imported when they are first asked for: explaining a model takes none of them.
_HOMES = {
    "ForwardReport": "forward",
    "RecurrentNetwork": "recurrent",
    "check_forward": "forward",
    "from_sklearn": "scikit",
    "gru": "recurrent",
    "load_keras": "keras",
    "load_program": "program",
    "lstm": "recurrent",
}


if not TYPE_CHECKING:  # a type checker that saw this would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
