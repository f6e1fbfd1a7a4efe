"""Presets: named rule maps, as the field names them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from relprop.engine.operation import Operation
from relprop.errors import InvalidRule
from relprop.rulemap import RuleMap, Selector, as_rule_map
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, Half, Rule, SignalTakesAll, WSquare, ZBox, ZPlus

Bounds = tuple[float | Tensor, float | Tensor]
Entries = list[tuple[Selector, Rule]]
Rules = str | RuleMap | Rule | Sequence[tuple[Selector, Rule]]

# Sums and normalisers in the classic presets for convolutional networks.
STABILISED: Entries = [("sum", Epsilon(1e-6)), ("normaliser", Epsilon(1e-6))]


@dataclass(frozen=True)
class Preset:
    """A named rule map; `build` makes its entries, from the input's bounds where it uses them."""

    name: str
    summary: str
    build: Callable[[Bounds | None], Entries]
    needs_bounds: bool = False


def _box(bounds: Bounds | None) -> Rule:
    assert bounds is not None
    return ZBox(*bounds)


def _deep_taylor_first(bounds: Bounds | None) -> Rule:
    return WSquare() if bounds is None else ZBox(*bounds)


_PRESETS = (
    Preset("epsilon", "Epsilon(1e-6) everywhere", lambda _: [("affine", Epsilon(1e-6))]),
    Preset(
        "epsilon-plus",
        "z+ on convolutions, epsilon on linear layers",
        lambda _: [("conv", ZPlus()), ("linear", Epsilon(1e-6)), *STABILISED],
    ),
    Preset(
        "epsilon-plus-flat",
        "as epsilon-plus, with the flat rule on the first layer",
        lambda _: [("first", Flat()), ("conv", ZPlus()), ("linear", Epsilon(1e-6)), *STABILISED],
    ),
    Preset(
        "epsilon-gamma-box",
        "z-box on the first layer, gamma 0.25 on convolutions, epsilon on linear layers; needs bounds",
        lambda bounds: [("first", _box(bounds)), ("conv", Gamma(0.25)), ("linear", Epsilon(1e-6)), *STABILISED],
        needs_bounds=True,
    ),
    Preset(
        "epsilon-alpha2-beta1",
        "alpha 2 beta 1 on convolutions, epsilon on linear layers",
        lambda _: [("conv", AlphaBeta(2, 1)), ("linear", Epsilon(1e-6)), *STABILISED],
    ),
    Preset(
        "epsilon-alpha2-beta1-flat",
        "as epsilon-alpha2-beta1, with the flat rule on the first layer",
        lambda _: [("first", Flat()), ("conv", AlphaBeta(2, 1)), ("linear", Epsilon(1e-6)), *STABILISED],
    ),
    Preset(
        "deep-taylor",
        "z+ in hidden layers; on the first one z-box when bounds are given, else w^2",
        lambda bounds: [("first", _deep_taylor_first(bounds)), ("affine", ZPlus()), *STABILISED],
    ),
    Preset("gamma", "Gamma(0.25) everywhere", lambda _: [("affine", Gamma(0.25)), *STABILISED]),
    Preset("w-square", "w^2 everywhere", lambda _: [("affine", WSquare()), *STABILISED]),
    Preset(
        "attn-lrp",
        "AttnLRP: epsilon on linear layers, half each for attention weights and values, the Taylor rule for softmax",
        lambda _: [("affine", Epsilon(1e-6)), ("attention", Half())],
    ),
    Preset(
        "attn-lrp-vit",
        "AttnLRP for vision Transformers: gamma, 0.25 on convolutions and 0.05 on linear layers, else as attn-lrp",
        lambda _: [("conv", Gamma(0.25)), ("linear", Gamma(0.05)), ("attention", Half())],
    ),
    Preset(
        "cp-lrp",
        "CP-LRP: epsilon on linear layers; attention weights, statistics and what gates a signal are constants",
        lambda _: [("affine", Epsilon(1e-6)), ("attention", SignalTakesAll()), ("gated", SignalTakesAll())],
    ),
)
PRESETS: dict[str, Preset] = {preset.name: preset for preset in _PRESETS}
AUTO = "auto"


def rule_map(rules: Rules, bounds: Bounds | None = None) -> RuleMap | None:
    """The rule map of a preset's name, a rule map, a rule or a list of entries; None for "auto"."""
    if not isinstance(rules, str):
        return as_rule_map(rules)
    if rules == AUTO:
        return None
    preset = PRESETS.get(rules)
    if preset is None:
        close = difflib.get_close_matches(rules, [*PRESETS, AUTO], n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise InvalidRule(f"there is no preset {rules!r}.{hint} The presets are: {AUTO}, {', '.join(PRESETS)}")
    if preset.needs_bounds and bounds is None:
        raise InvalidRule(
            f"the preset {rules!r} uses the range of valid inputs. Give it, for example bounds=(-1, 1), or per channel "
            "bounds=(low, high) with tensors of shape (channels, 1, 1)"
        )
    return RuleMap(preset.build(bounds), name=rules)


def choose(operations: Sequence[Operation]) -> RuleMap:
    """What "auto" means for the operations of a trace."""
    kinds = {op.kind for op in operations}
    if "attention" in kinds:
        name = "attn-lrp"
    elif "conv" in kinds:
        # The flat rule has no meaning for a recurrent layer, nor for embedded words, whose values are all there is.
        apart = any((op.first and op.kind == "recurrent") or op.name == "tokens" for op in operations)
        name = "epsilon-plus" if apart else "epsilon-plus-flat"
    else:
        name = "epsilon"
    chosen = rule_map(name)
    assert chosen is not None
    return RuleMap(chosen.entries, name=f"auto: {name}")
