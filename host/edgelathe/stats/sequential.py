"""When a measurement may end: at planned looks, with intervals that hold at whichever look one stops."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgelathe.stats import latency, ratio
from edgelathe.stats.boundary import GROWTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    Blocks = Sequence[NDArray[np.generic]]


def looks(most: int, first: int = 10) -> tuple[int, ...]:
    """Numbers of pairs (or blocks) after which to look: from `first` on, growing by GROWTH, the last is `most`.

    Their count is K for `settled`, `limit_settled`, `ratio.compare` and `latency.claim`.
    """
    if most < 1 or first < 1:
        raise ValueError(f"{most} pairs at most, the first look at {first}: both are 1 at least")
    at = [min(first, most)]
    while at[-1] < most:
        at.append(min(most, math.ceil(at[-1] * GROWTH)))
    return tuple(at)


def settled(a: Blocks, b: Blocks, k: int, count: int, name: str = "p50", margin: float = 0.02) -> bool:
    """Whether the comparison may end at look k of `count` (1, 2, ...): it is surely settled, or this is the last look.

    a[i] was measured beside b[i]. `same` ends it; `faster` or `slower` only where the ratio lies beyond the margin:
    two processes of one model often differ by a percent for as long as they live, and more pairs then show that they
    are `same`. Report `ratio.compare(a, b, name, margin, looks=count)`: its interval holds 95% at any look.
    """
    _check(k, count)
    if k == count:
        return True
    found = ratio.compare(a, b, name, margin, looks=count)
    beyond = abs(math.log(found.ratio)) > math.log1p(margin)
    return found.verdict == "same" or (found.verdict != "undecided" and beyond)


def limit_settled(blocks: latency.BlocksNs, statistic: str, limit_ms: float, k: int, count: int) -> bool:
    """Whether a limit on a latency statistic is surely kept or surely broken at look k of `count`, or this is the last.

    Report `latency.claim(blocks, statistic, looks=count)`: its bounds hold 95% each at whichever look one stopped.
    """
    _check(k, count)
    found = latency.claim(blocks, statistic, looks=count)
    return k == count or found.upper <= limit_ms or found.lower > limit_ms


def ratio_settled(a: Blocks, b: Blocks, statistic: str, limit: float, k: int, count: int) -> bool:
    """As `limit_settled` for a limit on time of b over time of a; report `ratio.compare(..., looks=count).claim`."""
    _check(k, count)
    found = ratio.compare(a, b, statistic, looks=count)
    return k == count or found.upper <= limit or found.lower > limit


def _check(k: int, count: int) -> None:
    if not 1 <= k <= count:
        raise ValueError(f"look {k} of {count}")
