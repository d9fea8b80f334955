"""Did the latency drift while it was measured?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.stats.series import ranks

FEWEST = 8
"""With fewer blocks a trend is not tested."""

IRRELEVANT = 0.02
"""A change over the whole run below this part of the median is no drift worth a word."""


@dataclass(frozen=True)
class Drift:
    """A trend over a run.

    Attributes:
        relative: change from the first block to the last over the median (0.05: 5% slower at the end).
        p: two-sided, of there being no trend; 1 where there are too few blocks to say.
        significant: p is below 1%, and the change is at least IRRELEVANT either way.
    """

    relative: float
    p: float
    significant: bool

    def to_json(self) -> dict[str, Any]:
        """Plain fields."""
        return {"relative": self.relative, "p": self.p, "significant": self.significant}


def drift(blocks_ns: Sequence[NDArray[np.generic]]) -> Drift:
    """Theil and Sen's slope over the medians of blocks in the order they were taken, and a test of it.

    Mann and Kendall's trend test with the variance of correlated values: Hamed and Rao (1998), A modified Mann-Kendall
    trend test for autocorrelated data, equation 17, for an AR(1) process whose correlation is corrected for bias as in
    Hamed (2009), Enhancing the effectiveness of prewhitening in trend analysis. Blocks are taken as equally long. Fewer
    than FEWEST blocks: no drift is claimed. Raises ValueError without samples.
    """
    medians = np.array([np.median(np.asarray(b, np.float64)) for b in blocks_ns if len(b)])
    if not len(medians):
        raise ValueError("no blocks")
    n, middle = len(medians), float(np.median(medians))
    if n < 3 or middle == 0:
        return Drift(0.0, 1.0, False)
    i, j = np.triu_indices(n, 1)
    rises = medians[j] - medians[i]
    slope = float(np.median(rises / (j - i)))
    relative = slope * (n - 1) / middle
    if n < FEWEST:
        return Drift(relative, 1.0, False)
    score = float(np.sign(rises).sum())
    variance = _tied_variance(medians) * _inflation(ranks(medians - slope * np.arange(n)))
    p = math.erfc(max(0.0, abs(score) - 1) / math.sqrt(2 * variance)) if variance > 0 else 1.0
    return Drift(relative, p, p < 0.01 and abs(relative) >= IRRELEVANT)


def _tied_variance(values: NDArray[np.float64]) -> float:
    """The variance of Kendall's score for independent values with ties (Kendall, Rank Correlation Methods, 5)."""
    n, ties = len(values), np.unique(values, return_counts=True)[1].astype(np.float64)
    return float(n * (n - 1) * (2 * n + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18


def _inflation(order: NDArray[np.float64]) -> float:
    """Hamed and Rao's n/n*, for ranks around a trend that follow an AR(1) process; 1 where neighbours are not alike.

    The correlation of neighbours is corrected for its bias as Hamed (2009) does. At less than the one-sided 20% level
    it counts as none.
    """
    n = len(order)
    centred = order - order.mean()
    total = float(centred @ centred)
    first = float(centred[1:] @ centred[:-1]) / total if total else 0.0
    if first < 0.84 / math.sqrt(n) - 2 / n:
        return 1.0
    lags = np.arange(1, n)
    found = min(0.99, (n * first + 2) / (n - 4)) ** lags
    weights = (n - lags) * (n - lags - 1) * (n - lags - 2)
    return 1 + 2 / (n * (n - 1) * (n - 2)) * float(weights @ found)
