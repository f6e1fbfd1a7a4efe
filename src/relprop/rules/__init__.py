"""The rules of Layer-wise Relevance Propagation, one family a file."""

from relprop.rules.base import Layer, Rule
from relprop.rules.epsilon import Epsilon, Zero
from relprop.rules.first import Flat, Pass, WSquare, ZBox
from relprop.rules.signed import AlphaBeta, Gamma, ZPlus

__all__ = ["AlphaBeta", "Epsilon", "Flat", "Gamma", "Layer", "Pass", "Rule", "WSquare", "ZBox", "ZPlus", "Zero"]
