"""relprop: what made a neural network decide, by Layer-wise Relevance Propagation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relprop import errors, evaluate, methods, models, rules, targets, text, zoo
    from relprop.attribution import Attribution, load
    from relprop.engine.registry import register
    from relprop.explainer import Explainer, check, explain
    from relprop.models import check_forward, load_program
    from relprop.report import Report
    from relprop.rulemap import RuleMap
    from relprop.text import Encoding, TextAttribution, explain_text

__version__ = "0.1.0"

__all__ = [
    "Attribution",
    "Encoding",
    "Explainer",
    "Report",
    "RuleMap",
    "TextAttribution",
    "check",
    "check_forward",
    "errors",
    "evaluate",
    "explain",
    "explain_text",
    "load",
    "load_program",
    "methods",
    "models",
    "register",
    "rules",
    "targets",
    "text",
    "zoo",
]

# Where each public name comes from, imported when it is first asked for: torch takes seconds, `relprop --help` none.
_HOMES = {
    "Attribution": "relprop.attribution",
    "Encoding": "relprop.text.encoding",
    "Explainer": "relprop.explainer",
    "Report": "relprop.report",
    "RuleMap": "relprop.rulemap",
    "TextAttribution": "relprop.text.attribution",
    "check": "relprop.explainer",
    "check_forward": "relprop.models",
    "explain": "relprop.explainer",
    "explain_text": "relprop.text.explain",
    "load": "relprop.attribution",
    "load_program": "relprop.models",
    "register": "relprop.engine.registry",
}
_MODULES = {"errors", "evaluate", "methods", "models", "rules", "targets", "text", "zoo"}


if not TYPE_CHECKING:  # a type checker that saw this would accept any name

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
