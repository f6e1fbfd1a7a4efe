"""The oracle: relevance as explicit messages over dense matrices, slow and obvious, independent of relprop."""

from .backward import RuleMap, by_kind, everywhere, first_affine, relevance, relevances
from .module import as_module
from .network import Network, Node, values
from .random_networks import Case, RuleSpec, networks, rule_map, rules_by_module

__all__ = [
    "Case",
    "Network",
    "Node",
    "RuleMap",
    "RuleSpec",
    "as_module",
    "by_kind",
    "everywhere",
    "first_affine",
    "networks",
    "relevance",
    "relevances",
    "rule_map",
    "rules_by_module",
    "values",
]
