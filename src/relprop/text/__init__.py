"""Text: tokens and words of a text, and what made a model decide about it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from relprop.text.encoding import Encoding

if TYPE_CHECKING:
    from relprop.text.archive import load
    from relprop.text.attribution import TextAttribution, Token, Word, save
    from relprop.text.explain import TextExplainer, explain_text

__all__ = ["Encoding", "TextAttribution", "TextExplainer", "Token", "Word", "explain_text", "load", "save"]

# Imported when first asked for: they need torch, which an Encoding does not.
_HOMES = {
    "TextAttribution": "relprop.text.attribution",
    "TextExplainer": "relprop.text.explain",
    "Token": "relprop.text.attribution",
    "Word": "relprop.text.attribution",
    "explain_text": "relprop.text.explain",
    "load": "relprop.text.archive",
    "save": "relprop.text.attribution",
}


if not TYPE_CHECKING:  # a type checker that saw this would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)
