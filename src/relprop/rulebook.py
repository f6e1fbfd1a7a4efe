"""Rules and presets as people are told of them, and rules as people write them: "Gamma(0.25)", never evaluated."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from dataclasses import MISSING, Field, fields
from typing import Any

from relprop import rules
from relprop.errors import InvalidRule
from relprop.presets import AUTO, PRESETS, Bounds, Preset, Rules
from relprop.rules import Rule, ZBox

LONGEST = 200  # characters of a rule or selector
AUTO_SUMMARY = (
    "decided from the model's operations: epsilon-plus-flat for convolutions, attn-lrp for attention, else epsilon"
)
_ABSTRACT = (rules.Rule, rules.ProductRule)

RULES: dict[str, type[Rule]] = {
    name: found
    for name in rules.__all__
    if isinstance(found := getattr(rules, name), type) and issubclass(found, Rule) and found not in _ABSTRACT
}

SELECTORS = {
    "first": "the first affine operations on the way from the input",
    "last": "the last affine operations before the score",
    "conv": "convolutions",
    "linear": "linear and recurrent layers",
    "recurrent": "recurrent layers: LSTM, GRU, RNN",
    "affine": "convolutions, linear and recurrent layers",
    "sum": "sums of several values: residual connections, pooling; Zero() or Epsilon(eps)",
    "normaliser": "layer norm and the like; Zero() or Epsilon(eps)",
    "gate": "a gate times a signal; SignalTakesAll(), Half(), Absolute() or Proportional()",
    "gated": "an activation times a signal, as in SwiGLU; the rules of gates",
    "attention": "attention weights times values; the rules of gates",
}


def rules_of(text: str, bounds: Bounds | None = None) -> Rules:
    """What is written as rules: the name of a preset, or a rule as for `rule_of`. Raises InvalidRule for the latter."""
    return rule_of(text, bounds) if "(" in text else text


def rule_of(text: str, bounds: Bounds | None = None) -> Rule:
    """The rule that is written, as "Gamma(0.25)"; "ZBox()" has the `bounds` of the model. Raises InvalidRule."""
    name, values, named = _parts(text)
    if name not in RULES:
        close = difflib.get_close_matches(name, RULES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise InvalidRule(f"there is no rule {name!r}.{hint} The rules are: {', '.join(RULES)}")
    kind = RULES[name]
    if kind is ZBox and not values and not named.keys() & {"low", "high"}:
        if bounds is None:
            raise InvalidRule("ZBox needs the range of valid inputs, and this model names none; write ZBox(-1, 1)")
        values = list(bounds)
    try:
        inspect.signature(kind).bind(*values, **named)
    except TypeError as error:
        known = ", ".join(each.name for each in _fields(kind)) or "none"
        raise InvalidRule(f"{text}: {error}; the parameters of {name} are: {known}") from None
    try:
        return kind(*values, **named)
    except (TypeError, ValueError, RuntimeError) as error:  # a parameter of a kind that the rule can't read
        raise InvalidRule(f"{text}: {error}") from None


def rules_told() -> list[dict[str, Any]]:
    """Each rule, for JSON: its name, how it is written, its formula, parameters and description."""
    return [
        {
            "name": name,
            "signature": f"{name}({', '.join(map(_written, inspect.signature(kind).parameters.values()))})",
            "formula": _formula(kind),
            "parameters": [_parameter(each) for each in _fields(kind)],
            "description": inspect.getdoc(kind) or "",
        }
        for name, kind in RULES.items()
    ]


def presets_told() -> list[dict[str, Any]]:
    """Each preset, for JSON, `auto` first: its name, what it is, and its entries (selector, rule)."""
    auto = {"name": AUTO, "summary": AUTO_SUMMARY, "needs_bounds": False, "entries": []}
    others = [
        {"name": each.name, "summary": each.summary, "needs_bounds": each.needs_bounds, "entries": _entries(each)}
        for each in PRESETS.values()
    ]
    return [auto, *others]


def presets_for(bounds: Bounds | None, recurrent: bool) -> list[str]:
    """The presets that a model can be explained with. Those that look at single inputs have no meaning for recurrent
    layers, whose hidden states they would treat as inputs."""
    return [
        AUTO,
        *(
            preset.name
            for preset in PRESETS.values()
            if not (preset.needs_bounds and bounds is None)
            and not (recurrent and any(not rule.proportional for _, rule in preset.build(bounds)))
        ),
    ]


def _parts(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """The name and the parameters of a rule that is written as a call."""
    wrong = InvalidRule(f"{text[:60]!r} is no rule; write its name and parameters, as Gamma(0.25) or Epsilon(eps=1e-6)")
    if len(text) > LONGEST:
        raise wrong
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise wrong from None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
        raise wrong
    named = {str(each.arg): _value(each.value, text) for each in call.keywords if each.arg is not None}
    if len(named) < len(call.keywords):  # **options, or a parameter given twice
        raise wrong
    return call.func.id, [_value(each, text) for each in call.args], named


def _value(node: ast.expr, text: str) -> float | bool | str:
    """A parameter: a finite number, True, False or a word in quotes."""
    sign = 1.0
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        sign, node = -1.0 if isinstance(node.op, ast.USub) else 1.0, node.operand
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(value, (bool, str)) and sign == 1.0:
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30:
        return sign * value
    raise InvalidRule(f"{text[:60]}: parameters are finite numbers, True, False or words in quotes")


def _fields(kind: type[Rule]) -> tuple[Field[Any], ...]:
    return fields(kind)  # type: ignore[arg-type]


def _entries(preset: Preset) -> list[list[str]]:
    built = preset.build((0.0, 1.0) if preset.needs_bounds else None)
    return [[str(selector), re.sub(r"ZBox\(.*\)", "ZBox(low, high)", repr(rule))] for selector, rule in built]


def _written(parameter: inspect.Parameter) -> str:
    default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
    return f"{parameter.name}{default}"


def _formula(kind: type[Rule]) -> str:
    """The part of a rule's docstring that says what R_i is, from there on; else its first paragraph."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in (inspect.getdoc(kind) or "").split("\n\n")]
    return next((p[p.index("R_i = ") :] for p in paragraphs if "R_i = " in p), paragraphs[0])


def _parameter(field: Field[Any]) -> dict[str, Any]:
    """A parameter's name, its default (None: there is none) and, if they are few, what it can be."""
    default = None if field.default is MISSING else field.default
    told: dict[str, Any] = {"name": field.name, "default": default}
    if field.name == "bias" and isinstance(default, str):
        told["choices"] = ["absorb", "distribute"]
    return told
