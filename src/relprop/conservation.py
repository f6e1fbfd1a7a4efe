"""Where relevance went: overall, and operation by operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NOT_DIVIDED = "this method does not divide the score up, so its sum isn't meant to be the score"


@dataclass(frozen=True)
class OperationFlow:
    """The relevance that one operation received and what it passed on, summed over the batch.

    `received` is the sum of relevance at the operation's output, `passed` the sum at its live inputs;
    `absorbed` says by cause where the difference went ("bias", "stabiliser", "empty denominator", ...).
    """

    index: int
    function: str
    module: str
    kind: str
    rule: str
    received: float
    passed: float
    absorbed: Mapping[str, float] = field(default_factory=dict)

    @property
    def difference(self) -> float:
        """received - passed."""
        return self.received - self.passed


@dataclass(frozen=True)
class Conservation:
    """The balance of one explanation, summed over the batch.

    score = relevance + difference; `absorbed` names where the difference went, by cause, and
    `operations` (in forward order) where in the network. `redistributes`: whether a score was divided up, as by LRP;
    the relevance of other methods, such as the gradient, isn't meant to sum to it.
    """

    score: float
    relevance: float
    operations: tuple[OperationFlow, ...] = ()
    redistributes: bool = True

    @property
    def difference(self) -> float:
        """score - relevance."""
        return self.score - self.relevance

    @property
    def absorbed(self) -> dict[str, float]:
        """The difference by cause, over all operations; causes that absorbed nothing are left out."""
        total: dict[str, float] = {}
        for operation in self.operations:
            for cause, amount in operation.absorbed.items():
                total[cause] = total.get(cause, 0.0) + amount
        return {cause: amount for cause, amount in total.items() if amount != 0.0}

    def __str__(self) -> str:
        if not self.redistributes:
            return f"score {self.score:+.6g}, sum of relevance {self.relevance:+.6g}: {NOT_DIVIDED}"
        lines = [
            f"score {self.score:+.6g} = relevance {self.relevance:+.6g} "
            f"+ not passed to the input {self.difference:+.6g}"
        ]
        lines += [f"  {cause}: {amount:+.6g}" for cause, amount in self.absorbed.items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The balance in a notebook, and the operations that passed less or more on than they received."""
        from relprop.view.tables import balance, fragment, losses

        return fragment([balance(self), losses(self)], "Where the relevance went")
