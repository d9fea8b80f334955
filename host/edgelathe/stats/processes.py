"""The same model in several fresh processes: memory layout is drawn anew in each, and is a part of the uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.claim import Claim
from edgelathe.core.interval import Interval
from edgelathe.core.result import Latency
from edgelathe.stats import latency, ratio
from edgelathe.stats.latency import STATISTICS, BlocksNs, statistic
from edgelathe.stats.ratio import Comparison
from edgelathe.stats.special import beta_below, student

#: The share of the middle value from which a spread between processes is worth telling.
WORTH = 0.01


@dataclass(frozen=True)
class Spread:
    """One statistic in each process, in ms.

    `share`: largest minus smallest over their mean. `matters`: the processes differ by more than their blocks do
    (F test of a one-way layout, 1%), and by more than WORTH: layout luck, which one process would not show.
    """

    values: tuple[float, ...]
    share: float
    matters: bool

    def to_json(self) -> dict[str, Any]:
        """The `processes` of a result of `edgelathe.bench/1`."""
        return {"values": list(self.values), "spread": self.share, "matters": self.matters}


def spread(groups: Sequence[BlocksNs], name: str = "p50") -> Spread:
    """How a statistic differs between processes, `groups` of blocks of int64 nanoseconds."""
    values, middles = _by_process(groups, name), [_middles(g, name) for g in groups]
    share = (max(values) - min(values)) / (sum(values) / len(values))
    return Spread(values, share, share > WORTH and _differ(middles))


def summarize(groups: Sequence[BlocksNs]) -> Latency:
    """Of all samples; the intervals are about the next process, not about these (see `reach`)."""
    whole = latency.summarize([b for g in groups for b in g])
    ci = {}
    for name in STATISTICS:
        ci[name] = _around(getattr(whole, name), groups, name, 0.025)
    return replace(whole, ci=ci)


def claim(groups: Sequence[BlocksNs], name: str) -> Claim:
    """One statistic in ms, with one-sided 95% bounds as wide as `summarize` makes its intervals."""
    whole = latency.claim([b for g in groups for b in g], name)
    ends = _around(whole.value, groups, name, 0.05)
    return replace(whole, lower=ends.low, upper=ends.high)


def _around(value: float, groups: Sequence[BlocksNs], name: str, alpha: float) -> Interval:
    """On the logarithms of the processes' own statistics: a time has no bound below 0. Infinite below two processes."""
    r = reach([math.log(v) for v in _by_process(groups, name)], alpha)
    return Interval(-math.inf, math.inf) if math.isinf(r) else Interval(value * math.exp(-r), value * math.exp(r))


def reach(values: Sequence[float], alpha: float) -> float:
    """Half of the interval of the mean over processes, each side with confidence 1 - alpha; infinite below two.

    Student's t over the processes' own statistics (Kalibera and Jones, Rigorous benchmarking in reasonable time, 2013,
    9: the highest level of repetition carries the variance of all levels below it).
    """
    n = len(values)
    return math.inf if n < 2 else student(alpha, n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)


def compare(
    a: Sequence[ratio.Blocks], b: Sequence[ratio.Blocks], name: str = "p50", margin: float = 0.02
) -> Comparison:
    """Time of b over time of a, from processes that were measured in turns: a[i] beside b[i].

    The mean over the processes of the logarithm of each one's ratio, with Student's t.
    """
    logs = np.array([math.log(ratio.compare(x, y, name).ratio) for x, y in zip(a, b, strict=True)])
    middle = float(logs.mean())
    two, one = reach(logs.tolist(), 0.025), reach(logs.tolist(), 0.05)
    low, high = math.exp(middle - two), math.exp(middle + two)
    ends = math.exp(middle - one), math.exp(middle + one)
    return Comparison(math.exp(middle), low, high, *ends, ratio.verdict(low, high, margin), pairs=len(logs))


def _by_process(groups: Sequence[BlocksNs], name: str) -> tuple[float, ...]:
    measure = statistic(name)
    return tuple(measure(np.concatenate(list(g))) / 1e6 for g in groups)


def _middles(blocks: BlocksNs, name: str) -> NDArray[np.float64]:
    measure = statistic(name)
    return np.array([measure(b) for b in blocks if len(b)])


def _differ(groups: Sequence[NDArray[np.float64]]) -> bool:
    """The F test of a one-way layout, at 1%."""
    values = np.concatenate(groups)
    many, n, mean = len(groups), len(values), float(np.concatenate(groups).mean())
    total = float(((values - mean) ** 2).sum())
    if many < 2 or n <= many or total <= 0:
        return False
    between = sum(len(g) * (float(g.mean()) - mean) ** 2 for g in groups)
    return beta_below(min(1.0, between / total), (many - 1) / 2, (n - many) / 2) > 0.99
