"""The ways in which each input is explained: by which rules of LRP, and by which other methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from relprop.attribution import LRP
from relprop.cli.options import listed
from relprop.explainer import Explainer
from relprop.methods import method_of
from relprop.presets import Bounds, rule_map
from relprop.rulebook import rules_of
from relprop.text import TextExplainer

_ANY = (0.0, 1.0)  # stands for the bounds of a model that isn't known yet


class Ways:
    """What --rules and --method ask for. Raises typer.BadParameter, or RelpropError for a name that there is not."""

    def __init__(self, rules: Sequence[str] | None, methods: Sequence[str] | None = None) -> None:
        self.rules, self.methods = listed(rules), listed(methods) or [LRP]
        if self.rules and LRP not in self.methods:
            raise typer.BadParameter("presets are for lrp; add lrp to --method", param_hint="--rules")
        for written in self.rules:
            rule_map(rules_of(written, _ANY), _ANY)
        for method in self.methods:
            method_of(method)

    def __len__(self) -> int:
        """How many explanations there are of each score."""
        return sum(max(1, len(self.rules)) if method == LRP else 1 for method in self.methods)

    def explain(
        self, explainer: Explainer | TextExplainer, x: Any, target: Any, preset: str, bounds: Bounds | None = None
    ) -> dict[str, Any]:
        """The explanations of one score, by name, as `compare` returns them.

        preset: for LRP where no rules were asked for. bounds: those of the model.
        """
        rules = [rules_of(written, bounds) for written in self.rules or [preset]]
        found: dict[str, Any] = {}
        for method in self.methods:
            if method == LRP:
                found |= explainer.compare(x, rules, target)
            else:
                found |= explainer.compare(x, target=target, methods=[method])
        return found
