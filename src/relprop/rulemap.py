"""Rule maps: which rule where. An ordered list of (selector, rule); the first match wins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from relprop.engine.operation import Operation
from relprop.errors import InvalidRule
from relprop.rules import Epsilon, Half, ProductRule, Rule, SignalTakesAll, Zero
from relprop.rules.product import WithGates

Selector = str | type | Callable[[Operation], bool]

# Kinds of operation that a rule is chosen for; "affine" stands for the first three, "linear" for recurrent layers too.
AFFINE_KINDS = ("conv", "linear", "recurrent")
STABILISED_KINDS = ("sum", "normaliser")
# Products of a weight and a signal, with the rule that they follow unless the map names another.
PRODUCT_KINDS: dict[str, ProductRule] = {"gate": SignalTakesAll(), "gated": Half(), "attention": Half()}
WORDS = ("affine", *AFFINE_KINDS, *STABILISED_KINDS, *PRODUCT_KINDS, "first", "last")


@dataclass(frozen=True, init=False)
class RuleMap:
    """An ordered list of (selector, rule).

    A selector is one of the words "conv", "linear", "recurrent" (LSTM, GRU, RNN; they count as linear too), "affine"
    (all three), "first" and "last" (the first and last affine operations between input and score), "sum" and
    "normaliser" (whose rule is Zero() or Epsilon(eps)), "gate" and "attention" (gate or attention weights times a
    signal, inside recurrent layers too: SignalTakesAll(), Half(), Absolute(), ...), "gated" (an activation times a
    signal, such as SwiGLU's silu(g) * u; the activation is the weight, and Half() the rule if none is named); a glob on
    module names such as "features.*"; a module type; or a predicate on the operation (its `kind`, `module`,
    `module_type`, `function`, `shape`, `first`, `last`). Globs, types and "first"/"last" select affine operations.
    An affine operation that nothing selects is an error; sums and normalisers are then shared without stabiliser.
    """

    entries: tuple[tuple[Selector, Rule], ...]
    name: str

    def __init__(self, entries: Iterable[tuple[Selector, Rule]], name: str = "") -> None:
        checked = tuple(_entry(entry) for entry in entries)
        object.__setattr__(self, "entries", checked)
        object.__setattr__(self, "name", name)

    def __str__(self) -> str:
        return self.name or "[" + ", ".join(f"{_describe(s)}: {r!r}" for s, r in self.entries) + "]"

    def assign(self, operations: Sequence[Operation], recorded: Sequence[Operation] | None = None) -> dict[int, Rule]:
        """The rule of each operation, by its index. Raises InvalidRule for entries and operations without match.

        recorded: all operations of the model, those included to which no relevance flows (in gates, for example).
        """
        rules: dict[int, Rule] = {}
        for op in operations:
            if not (op.affine or op.kind in STABILISED_KINDS or op.kind in PRODUCT_KINDS):
                continue
            matches = _matches_cell if op.cell else _matches
            fitting = [rule for selector, rule in self.entries if matches(selector, op)]
            if op.kind in PRODUCT_KINDS:
                fitting = [rule for rule in fitting if isinstance(rule, ProductRule)]
                rules[op.index] = next(iter(fitting), PRODUCT_KINDS[op.kind])
                continue
            gate = next((rule for rule in fitting if isinstance(rule, ProductRule)), None)
            match = next((rule for rule in fitting if not isinstance(rule, ProductRule)), None)
            if match is not None:
                rules[op.index] = match if gate in (None, SignalTakesAll()) else WithGates(match, gate)
            else:
                if op.affine:
                    raise InvalidRule(
                        f"no entry of the rule map matches {op.where} (kind {op.kind!r}). Add a last entry for the "
                        'rest, for example ("affine", Epsilon())'
                    )
                rules[op.index] = Zero()
            if op.cell:
                rule = rules[op.index]  # of which a sum takes the stabiliser
                rules[op.index] = Epsilon(rule.eps) if isinstance(rule, Epsilon) else Zero()
            if not op.affine:
                rules[op.index].stabiliser()
        self._require_used(operations if recorded is None else recorded)
        return rules

    def _require_used(self, operations: Sequence[Operation]) -> None:
        """A glob or type that selects nothing is most likely a slip."""
        for selector, _ in self.entries:
            checked = isinstance(selector, type) or (isinstance(selector, str) and selector not in WORDS)
            if not checked or any(_matches(selector, op) for op in operations):
                continue
            names = sorted({op.module for op in operations if op.affine})
            raise InvalidRule(
                f"the selector {_describe(selector)} matches no operation. Affine operations are in the modules: "
                + (", ".join(repr(n) for n in names) or "none")
            )
        # Presets fit models without any affine operation too.
        if not self.name and not any(_matches(selector, op) for selector, _ in self.entries for op in operations):
            kinds = ", ".join(sorted({op.kind for op in operations}))
            raise InvalidRule(f"the rule map {self} matches nothing in this model, whose operations are: {kinds}")

    @property
    def gives_to_gates(self) -> bool:
        """Whether gates may take relevance, so that the way to them must be kept."""
        return any(
            isinstance(rule, ProductRule) and rule != SignalTakesAll() and selector not in ("attention", "gated")
            for selector, rule in self.entries
        )

    @property
    def needs_paths_everywhere(self) -> bool:
        """Whether rules that give relevance to zero inputs are asked for beyond the first affine operations."""
        return any(not rule.proportional and selector != "first" for selector, rule in self.entries)


def as_rule_map(rules: RuleMap | Rule | Sequence[tuple[Selector, Rule]]) -> RuleMap:
    """A rule map from what a user may write in its place: one rule for all affine operations, or a list."""
    if isinstance(rules, RuleMap):
        return rules
    if isinstance(rules, Rule):
        return RuleMap([("affine", rules)], name=repr(rules))
    if isinstance(rules, (list, tuple)):
        return RuleMap(rules)
    raise InvalidRule(
        f"rules: got {rules!r} ({type(rules).__name__}), expected the name of a preset, a RuleMap or a rule, for "
        'example rules="epsilon-plus-flat" or rules=Epsilon(1e-6)'
    )


def _entry(entry: Any) -> tuple[Selector, Rule]:
    if not (isinstance(entry, tuple) and len(entry) == 2):
        raise InvalidRule(f'a rule map is a list of (selector, rule), got {entry!r}; write ("conv", Gamma(0.25))')
    selector, rule = entry
    if isinstance(rule, type) and issubclass(rule, Rule):
        raise InvalidRule(f"got the class {rule.__name__}; write {rule.__name__}() with its parameters")
    if not isinstance(rule, Rule):
        raise InvalidRule(f"got {rule!r} as a rule for {_describe(selector)}; write for example Epsilon(1e-6)")
    if selector in PRODUCT_KINDS and not isinstance(rule, ProductRule):
        raise InvalidRule(
            f"{rule!r} says nothing of a {selector} times a signal. Write SignalTakesAll(), Half(), Absolute() "
            "or Proportional() for them"
        )
    if (
        isinstance(rule, ProductRule)
        and isinstance(selector, str)
        and selector in WORDS
        and selector not in PRODUCT_KINDS
    ):
        raise InvalidRule(
            f'{rule!r} shares products of a weight and a signal, so it has no meaning for {selector!r}. Write ("gate", '
            f'{rule!r}) or ("attention", {rule!r})'
        )
    if not (isinstance(selector, (str, type)) or callable(selector)):
        raise InvalidRule(f"got {selector!r} as a selector; write a word of {', '.join(WORDS)}, a glob, a type")
    return selector, rule


def _matches(selector: Selector, op: Operation) -> bool:
    if isinstance(selector, str):
        if selector in ("first", "last"):
            return op.affine and bool(getattr(op, selector))
        if selector == "affine":
            return op.affine
        if op.kind == "recurrent" and selector in ("linear", "gate"):
            return True
        if selector in WORDS:
            return op.kind == selector
        return op.affine and any(fnmatchcase(name, selector) for name, _ in op.modules)
    if isinstance(selector, type):
        return op.affine and any(kind is not None and issubclass(kind, selector) for _, kind in op.modules)
    return bool(selector(op))


def _matches_cell(selector: Selector, op: Operation) -> bool:
    """The sum f c + i g of a recurrent cell written by hand follows the rule of linear operations in its place, as it
    does inside torch's recurrent layers."""
    if isinstance(selector, str):
        return selector in ("affine", "linear", "recurrent") or (
            selector not in WORDS and fnmatchcase(op.module, selector)
        )
    if isinstance(selector, type):
        return op.module_type is not None and issubclass(op.module_type, selector)
    return False


def _describe(selector: Selector) -> str:
    if isinstance(selector, str):
        return repr(selector)
    return getattr(selector, "__name__", repr(selector))
