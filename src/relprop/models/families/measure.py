"""Is an architecture explained? Measured on its small random network."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from relprop.attribution import Attribution
from relprop.conservation import Conservation
from relprop.errors import InvalidFile, MissingExtra
from relprop.explainer import check, explain
from relprop.models.families.family import Family, Inputs
from relprop.rulemap import RuleMap
from relprop.rules import Half, ProductRule, SignalTakesAll, Zero
from relprop.targets import parts

Relevances = dict[str, Tensor]
# What tests/oracle/modified_gradient.py offers: relevance(model, inputs, target, softmax=...) and in_double().
Oracle = Any

# The two readings of a softmax by that oracle, and the rule that means the same for attention weights.
ATTENTION_RULES: dict[str, ProductRule] = {"taylor": Half(), "constant": SignalTakesAll()}


_UNKNOWN = float("nan")


@dataclass(frozen=True)
class Finding:
    """What was found for one architecture.

    error: type and first line of the error that refused it, or "".
    rules: what "auto" chose. operations: how many share relevance.
    same_output: whether the output equals that of the model on its own, bit for bit.
    share: relevance at the input / score, over both samples; lost_to: the largest cause of the rest.
    taylor, constant: AttnLRP and CP-LRP without stabiliser, in float64: the largest difference from the oracle,
        relative to the largest relevance; NaN if it was not asked.
    same_attention: so, between its implementations of attention; NaN if it has one.
    """

    family: Family
    error: str = ""
    rules: str = ""
    operations: int = 0
    same_output: bool = False
    same_attention: float = _UNKNOWN
    share: float = _UNKNOWN
    lost_to: str = ""
    taylor: float = _UNKNOWN
    constant: float = _UNKNOWN


def load_oracle(path: Path) -> Oracle:
    """The functions in a Python file such as tests/oracle/modified_gradient.py. Raises InvalidFile."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise InvalidFile(f"{str(path)!r} is no Python file. In a checkout write tests/oracle/modified_gradient.py")
    oracle = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(oracle)
    if not hasattr(oracle, "relevance") or not hasattr(oracle, "in_double"):
        raise InvalidFile(
            f"{path.name!r} has no relevance(...) and in_double(). Give tests/oracle/modified_gradient.py"
        )
    return oracle


def measured(family: Family, oracle: Oracle | None = None) -> Finding:
    """Explains the family's network, with each of its implementations of attention in float32.

    oracle: to compare values with, see `load_oracle`.
    """
    try:
        return _explained(family, oracle)
    except MissingExtra:
        raise
    except Exception as error:  # of whatever kind, it belongs in the table
        return Finding(family, error=f"{type(error).__name__}: {_first_line(error)}")


def without_stabiliser(attention: ProductRule) -> RuleMap:
    """LRP-0, with this rule for attention weights and values."""
    return RuleMap([("affine", Zero()), ("attention", attention)], name=f"LRP-0, {attention}")


def difference(found: Relevances, expected: Relevances) -> float:
    """The largest difference of an input's relevance, relative to its largest; infinite if an input is missing."""
    if set(found) != set(expected):
        return float("inf")
    gaps = [(found[name] - expected[name]).abs().max() / expected[name].abs().max() for name in expected]
    return float(torch.stack(gaps).max())


def same_values(output: Any, other: Any) -> bool:
    """Whether the tensors in two outputs are equal bit for bit, where both hold them (caches are not kept)."""
    expected = dict(parts(other))
    return all(torch.equal(tensor, expected[place]) for place, tensor in parts(output) if place in expected)


def plain_output(model: nn.Module, inputs: Inputs) -> Any:
    """What the model returns on its own; nn.TransformerEncoder without its fast path, whose rounding is another."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            return model(**inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _explained(family: Family, oracle: Oracle | None) -> Finding:
    attention = family.implementations()
    same_output = True
    for each in attention:
        model = family.network(each, torch.float32)
        inputs = family.inputs(model, torch.float32)
        attribution: Attribution = explain(model, inputs, family.task.target)
        same_output = same_output and same_values(attribution.output, plain_output(model, inputs))
    conservation = check(model, inputs, family.task.target).conservation
    taylor, constant, same_attention = _values(family, attention, oracle)
    return Finding(
        family,
        rules=attribution.rules,
        operations=len(conservation.operations),
        same_output=same_output,
        same_attention=same_attention,
        share=conservation.relevance / conservation.score,
        lost_to=_largest(conservation),
        taylor=taylor,
        constant=constant,
    )


def _values(family: Family, attention: tuple[str | None, ...], oracle: Oracle | None) -> tuple[float, float, float]:
    """(AttnLRP, CP-LRP) against the oracle, and AttnLRP between implementations of attention, in float64."""
    if oracle is None:
        return _UNKNOWN, _UNKNOWN, _UNKNOWN
    with oracle.in_double():
        model = family.network(attention[0])
        inputs = family.inputs(model)
        gaps = []
        for softmax, rule in ATTENTION_RULES.items():
            expected = oracle.relevance(model, inputs, family.task.target, softmax=softmax)
            gaps.append(difference(_relevance(family, attention[0], rule), expected))
        others = [_relevance(family, each, Half()) for each in attention]
        return gaps[0], gaps[1], difference(others[-1], others[0]) if len(others) > 1 else _UNKNOWN


def _relevance(family: Family, attention: str | None, rule: ProductRule) -> Relevances:
    model = family.network(attention)
    found: Attribution = explain(model, family.inputs(model), family.task.target, rules=without_stabiliser(rule))
    relevance = found.relevance
    assert isinstance(relevance, dict)
    return relevance


def _largest(conservation: Conservation) -> str:
    absorbed = conservation.absorbed
    return max(absorbed, key=lambda cause: abs(absorbed[cause]), default="")


def _first_line(error: Exception) -> str:
    """The error itself: what it says first, and of a list the first entry."""
    lines = str(error).splitlines()
    return lines[0] if len(lines) < 2 or not lines[0].endswith(":") else f"{lines[0]} {lines[1].strip()}"
