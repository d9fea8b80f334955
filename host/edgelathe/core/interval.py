"""An interval on a measured value, and the comparison of a bound with a limit."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

OPS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Interval:
    """A confidence interval [low, high], in the unit of the value that it bounds.

    `low` may be -inf and `high` +inf: then the samples do not support a bound on that side.
    """

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def unfavourable(self, op: str) -> float:
        """The end that a limit `value op limit` is judged by."""
        return self.high if op in ("<", "<=") else self.low

    def favourable(self, op: str) -> float:
        """The other end: a limit is missed only when even this one breaks it."""
        return self.low if op in ("<", "<=") else self.high
