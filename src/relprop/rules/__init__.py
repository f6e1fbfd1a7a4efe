"""The rules of Layer-wise Relevance Propagation, one family a file."""

from relprop.rules.base import Layer, Rule
from relprop.rules.epsilon import Epsilon, Zero
from relprop.rules.first import Flat, Pass, WSquare, ZBox
from relprop.rules.product import Absolute, Half, ProductRule, Proportional, SignalTakesAll
from relprop.rules.signed import AlphaBeta, Gamma, ZPlus

__all__ = [
    "Absolute",
    "AlphaBeta",
    "Epsilon",
    "Flat",
    "Gamma",
    "Half",
    "Layer",
    "Pass",
    "ProductRule",
    "Proportional",
    "Rule",
    "SignalTakesAll",
    "WSquare",
    "ZBox",
    "ZPlus",
    "Zero",
]
