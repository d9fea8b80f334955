"""A value with one-sided bounds: what a budget's limit is judged by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Claim:
    """A value with a ONE-SIDED 95% bound on each side, in the metric's unit: lower <= value <= upper.

    Each bound alone holds with 95% confidence; together they are a two-sided 90% interval. An infinite bound says
    that the samples are too few to support one. `exact` values (a file's size) have bound = value. `n` is the number
    of samples behind it, 0 where that means nothing.
    """

    value: float
    lower: float
    upper: float
    exact: bool = False
    n: int = 0

    def __post_init__(self) -> None:
        if not self.lower <= self.value <= self.upper or math.isinf(self.value):
            raise ValueError(f"no claim: {self.lower} <= {self.value} <= {self.upper} does not hold")

    @classmethod
    def of(cls, value: float) -> Claim:
        """An exact value: both bounds are the value itself."""
        return cls(value, value, value, exact=True)

    def scaled(self, factor: float) -> Claim:
        """The claim in another unit, `factor` > 0 times as large (seconds to milliseconds: 1000)."""
        if not factor > 0:
            raise ValueError(f"factor {factor} is not above 0")
        return Claim(self.value * factor, self.lower * factor, self.upper * factor, self.exact, self.n)

    def inverse(self, factor: float = 1.0) -> Claim:
        """The claim on factor / value, for values above 0 (milliseconds to calls per second: 1000). Bounds swap."""
        if not self.value > 0:
            raise ValueError(f"no inverse of {self.value}")
        low = 0.0 if math.isinf(self.upper) else factor / self.upper
        high = factor / self.lower if self.lower > 0 else math.inf
        return Claim(factor / self.value, low, high, self.exact, self.n)

    def to_json(self) -> dict[str, Any]:
        """Plain fields; an infinite bound is null."""
        lower, upper = (None if math.isinf(b) else b for b in (self.lower, self.upper))
        return {"value": self.value, "lower": lower, "upper": upper, "exact": self.exact, "n": self.n}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Claim:
        """The inverse of `to_json`."""
        lower = -math.inf if doc["lower"] is None else doc["lower"]
        upper = math.inf if doc["upper"] is None else doc["upper"]
        return cls(doc["value"], lower, upper, doc.get("exact", False), doc.get("n", 0))
