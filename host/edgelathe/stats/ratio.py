"""Two models measured in turns: is one faster?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.claim import Claim
from edgelathe.stats.boundary import repeated
from edgelathe.stats.latency import QUANTILES, statistic
from edgelathe.stats.series import effective_size, ranks
from edgelathe.stats.special import student

Speed = Literal["faster", "slower", "same", "undecided"]
Blocks = Sequence[NDArray[np.generic]]

FEWEST_PAIRS = 6
"""With fewer pairs no interval has 95%: all signs alike have probability 2/2^n."""

MOST_PAIRS = 500
"""More pairs than these are joined: exact ranks take time that grows with the third power."""


@dataclass(frozen=True)
class Comparison:
    """Time of b over time of a: two-sided 95% interval [low, high], one-sided 95% bounds, and what they show.

    With too few pairs `low` and `lower` are 0, `high` and `upper` infinite, and the verdict is `undecided`.
    """

    ratio: float
    low: float
    high: float
    lower: float
    upper: float
    verdict: Speed
    pairs: int = 0

    @property
    def claim(self) -> Claim:
        """The ratio with its one-sided bounds."""
        return Claim(self.ratio, self.lower, self.upper, n=self.pairs)

    def to_json(self) -> dict[str, Any]:
        """`ratio`, `low`, `high` (null: none yet) and `verdict`, as in `comparisons` of `edgelathe.bench/1`."""
        high = None if math.isinf(self.high) else self.high
        return {"ratio": self.ratio, "low": self.low, "high": high, "verdict": self.verdict}


def compare(a: Blocks, b: Blocks, name: str = "p50", margin: float = 0.02, looks: int = 1) -> Comparison:
    """The ratio of a statistic of b to that of a, from blocks that were measured in turns: a[i] beside b[i].

    Per pair of blocks the logarithm of the ratio; over the pairs the Hodges-Lehmann estimate with the exact interval
    of Wilcoxon's signed ranks (Hollander and Wolfe, Nonparametric Statistical Methods, 3.2 and 3.3; Conover 5.7). What
    both blocks of a pair share, such as a drift of the clock, cancels; a disturbed pair moves the estimate little.
    Assumes a symmetric distribution of the log ratio, which the random order within each pair gives where the models
    are alike; what neighbouring pairs share is seen and widens the interval (`effective_pairs`). For tail percentiles
    neighbouring pairs are `joined`. `same`: the interval lies within 1 / (1 + margin) and 1 + margin; else `faster` or
    `slower`: it excludes 1. With `looks` = K the bounds hold although one stopped at any of K looks
    (`sequential.looks`). Exchanging a and b gives the mirror image: 1 / ratio, and the verdict's opposite.
    """
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if len(x) and len(y)]
    if not pairs:
        raise ValueError("no pair of blocks to compare")
    measure = statistic(name)
    # a difference of logarithms, not the logarithm of a ratio: it changes its sign exactly when a and b are exchanged
    logs = np.array([_log(measure(y)) - _log(measure(x)) for x, y in joined(pairs, name)])
    size, averages = effective_pairs(logs), walsh_averages(logs)
    middle = float(np.median(averages))
    low, high = centre_bounds(averages, len(logs), size, repeated(0.025, looks))
    lower, upper = centre_bounds(averages, len(logs), size, repeated(0.05, looks))
    value, low, high, lower, upper = (math.exp(v) for v in (middle, low, high, lower, upper))
    return Comparison(value, low, high, lower, upper, verdict(low, high, margin), len(logs))


def effective_pairs(logs: NDArray[np.float64]) -> float:
    """How many independent pairs these are worth for what neighbours share, from the ranks of their values.

    Sessions live in processes of their own, and one may sit beside a busy neighbour for several rounds, which the
    random order within a round does not cancel. All of them where neighbours are not seen to be alike (one-sided 30%):
    the estimate's own noise would cost width. Ranks, so that a disturbed pair does not hide what is shared.
    """
    n = len(logs)
    centred = ranks(logs) - (n + 1) / 2
    total = float(centred @ centred)
    if n < 4 or total == 0 or float(centred[1:] @ centred[:-1]) / total < 0.52 / math.sqrt(n) - 1 / n:
        return float(n)
    return effective_size([centred])


def joined(pairs: Sequence[tuple[NDArray[np.generic], NDArray[np.generic]]], name: str) -> list[tuple[Any, Any]]:
    """Neighbouring pairs of blocks joined into about as many groups as give each side 1/(1-q) samples a group.

    Mean and median need no more than a block has. A tail percentile of fewer samples would be their maximum. There are
    never more than MOST_PAIRS groups.
    """
    q = QUANTILES.get(name, 0.5)
    groups = min(len(pairs), MOST_PAIRS)
    if q > 0.5:
        least = min(sum(map(len, side)) for side in zip(*pairs, strict=True))
        groups = max(1, min(groups, round(least * (1 - q))))
    if groups == len(pairs):
        return list(pairs)
    return [
        (np.concatenate([pairs[i][0] for i in group]), np.concatenate([pairs[i][1] for i in group]))
        for group in np.array_split(np.arange(len(pairs)), groups)
    ]


def calls_needed(name: str) -> int:
    """How many calls of each model an interval of the ratio needs at least: six groups, see `joined`."""
    return math.ceil(FEWEST_PAIRS / (1 - QUANTILES.get(name, 0.5)) - 1e-9)


def walsh_averages(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The means of all pairs of values, each value with itself too, ascending."""
    i, j = np.triu_indices(len(values))
    return np.sort((values[i] + values[j]) / 2)


def centre_bounds(averages: NDArray[np.float64], n: int, size: float, alpha: float) -> tuple[float, float]:
    """Bounds on the centre of n values by their Walsh averages, each with confidence 1 - alpha; infinite if too few.

    Wilcoxon's, exactly, where the values are worth `size` = n independent ones. Where they are worth fewer, its
    distances from the middle grow by the root of n / size, and by Student's t for a variance known from `size` only.
    """
    skip = signed_rank_quantile(n, alpha)
    if skip is None:
        return -math.inf, math.inf
    low, high = float(averages[skip]), float(averages[len(averages) - 1 - skip])
    if size >= n:
        return low, high
    middle = float(np.median(averages))
    stretch = math.sqrt(n / size) * student(alpha, max(1.0, size - 1)) / student(alpha, n - 1)
    return middle - stretch * (middle - low), middle + stretch * (high - middle)


@lru_cache(maxsize=512)
def signed_rank_quantile(n: int, alpha: float) -> int | None:
    """The largest t with P(W <= t) <= alpha for Wilcoxon's signed rank sum W of n values, exactly; None: too few."""
    below = np.ones(1)
    for rank in range(1, n + 1):
        added = np.zeros(len(below) + rank)
        added[: len(below)] += below / 2
        added[rank:] += below / 2
        below = added
    count = int(np.searchsorted(np.cumsum(below), alpha * (1 + 1e-12), side="right"))
    return count - 1 if count else None


def verdict(low: float, high: float, margin: float) -> Speed:
    """What a 95% interval of time of b over time of a shows; the margin is a factor, so that 1 / ratio mirrors it."""
    if 1 / (1 + margin) <= low and high <= 1 + margin:
        return "same"
    return "faster" if high < 1 else "slower" if low > 1 else "undecided"


def _log(time: float) -> float:
    if not time > 0:
        raise ValueError(f"a latency of {time} has no ratio")
    return math.log(time)
