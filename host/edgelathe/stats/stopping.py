"""Stop evaluating a candidate once the verdict on all samples is settled."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgelathe.stats import boundary
from edgelathe.stats.proportion import wilson
from edgelathe.stats.special import z

LOOKS = 10
"""At most so many looks at one evaluation; the error rate is controlled for this number."""

LATE = 0.8
"""The part of the samples at the look before the last."""

UNSEEN = 0.5
"""Samples won that are assumed beside those seen: without it a few losses look surer than they are (by simulation)."""

Decision = Literal["continue", "in", "out"]
Breaks = Callable[[int, int], bool]
"""(lost, won) of all samples -> whether a limit is broken; more lost never mend it."""


def looks(total: int, first: int = 50) -> tuple[int, ...]:
    """Numbers of samples after which to look: at most LOOKS, `first` at least, the last is `total`.

    A hopeless candidate shows early, a near miss late. Looks are spaced so that n / (total - n), the information
    (`_level`), grows by one factor up to LATE: each then adds as much to the chance of an error as any other.
    """
    if total <= first:
        return (total,) if total > 0 else ()
    odds, last = first / (total - first), max(first, LATE * total)
    growth = (last / max(1, total - last) / odds) ** (1 / max(1, LOOKS - 2))
    between = (odds * growth**i for i in range(LOOKS - 1))
    return tuple(sorted({min(total, math.ceil(total * o / (1 + o) - 1e-9)) for o in between} | {total}))


def decide(
    lost: int, won: int, n: int, total: int, limit: float, *, alpha: float = 0.05, lenient: bool = False,
    prove: bool = False,
) -> Decision:  # fmt: skip
    """What the evaluation of all `total` samples would say of a candidate's drop: at most `limit` (a fraction) or not.

    `lost` and `won` are the changed answers in the first n samples, which must be in random order. `in`: the upper
    bound on the drop (`paired_drop`; with `lenient` the drop itself) keeps the limit over all samples. `out`: the drop
    itself breaks it; with `prove` its bound does, which is enough where only a proof counts. Each is said wrongly with
    probability at most `alpha`, over all `looks`. What lies between, a drop below the limit whose bound is above it,
    goes on to the last sample (without `prove`).
    """
    if min(lost, won) < 0 or not lost + won <= n <= total:
        raise ValueError(f"{lost} lost and {won} won of {n} of {total}")

    def unproved(all_lost: int, all_won: int) -> bool:
        net = all_lost - all_won
        error = z(0.05) * math.sqrt(max(0.0, all_lost + all_won - net**2 / total)) + 1
        return net + (0 if lenient else error) > limit * total + 1e-9

    def broken(all_lost: int, all_won: int) -> bool:
        return all_lost - all_won > limit * total + 1e-9

    return _settle((lost, won), n, total, (unproved, unproved if prove else broken), alpha)


def decide_share(
    right: int, n: int, total: int, least: float, *, alpha: float = 0.05, lenient: bool = False,
    prove: bool = False,
) -> Decision:  # fmt: skip
    """As `decide`, of a share of right samples that must be at least `least`: `in` by Wilson's lower bound on it."""
    if not 0 <= right <= n <= total:
        raise ValueError(f"{right} right of {n} of {total}")

    def unproved(wrong: int, _: int) -> bool:
        return (wilson(total - wrong, total, 0.05).low if not lenient else 1 - wrong / total) < least - 1e-12

    def broken(wrong: int, _: int) -> bool:
        return 1 - wrong / total < least - 1e-12

    return _settle((n - right, 0), n, total, (unproved, unproved if prove else broken), alpha)


def _settle(seen: tuple[int, int], n: int, total: int, breaks: tuple[Breaks, Breaks], alpha: float) -> Decision:
    """Tests of the two sets of samples that lie nearest to what was seen and say otherwise."""
    unproved, broken = breaks
    (lost, won), left = seen, total - n
    if broken(lost, won + left):
        return "out"
    if not unproved(lost + left, won):
        return "in"
    if not left or not n:
        return "continue"
    at_each = _level(alpha, total)
    most_lost, its_won = _edge(seen, n, total, broken)
    if _tail((most_lost - 1, its_won), total, n, (lost, won), above=True) <= at_each:
        return "out"
    if _tail(_edge(seen, n, total, unproved), total, n, (lost, won), above=False) <= at_each:
        return "in"
    return "continue"


@lru_cache(maxsize=64)
def _level(alpha: float, total: int) -> float:
    """The level at each look, by Pocock's boundary; at the last one nothing is left to guess.

    The net loss in the first n of `total` samples is a bridge, tied at the end: its information is n / (total - n).
    """
    before = [n / (total - n) for n in looks(total)[:-1]]
    return boundary.level(alpha, before) if before else alpha


def _edge(seen: tuple[int, int], n: int, total: int, breaks: Breaks) -> tuple[int, int]:
    """The (lost, won) of all samples most like those seen, among those that just break the limit.

    The share won is its maximum-likelihood estimate given the difference (Tango, 1998, Equivalence test and confidence
    interval for the difference in proportions for the paired-sample design), found in a few rounds, as the difference
    at the edge depends on it.
    """
    all_won = round((seen[1] + UNSEEN) / (n + UNSEEN) * total)
    for _ in range(4):
        low, high = -1, total - all_won  # the fewest lost that break it, by bisection
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if breaks(middle, all_won) else (middle, high)
        found = _won_share((seen[0], seen[1] + UNSEEN), n + UNSEEN, (high - all_won) / total) * total
        if round(found) == all_won:
            break
        all_won = max(seen[1], round(found))
    return high, all_won


def _won_share(seen: tuple[float, float], n: float, difference: float) -> float:
    lost, won = seen
    b = (2 * n - lost + won) * difference - lost - won
    c = -won * difference * (1 - difference)
    return max(0.0, -difference, (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n))


def _tail(whole: tuple[int, int], total: int, n: int, seen: tuple[int, int], *, above: bool) -> float:
    """P(net loss among n of `total` samples >= (or <=) that seen), with `whole` = (lost, won) among all of them.

    Exact: the multivariate hypergeometric distribution, summed over all that is within 9 standard deviations.
    """
    lost, won = whole
    same, net = total - lost - won, seen[0] - seen[1]
    if same < 0 or lost < 0:
        return 0.0
    logs = _log_factorials(total)
    i, j = _window(lost, total, n)[:, None], _window(won, total, n)[None, :]
    rest = n - i - j
    fits = (rest >= 0) & (rest <= same) & ((i - j >= net) if above else (i - j <= net))
    rest = np.where(fits, rest, 0)
    weight = (
        logs[lost] - logs[i] - logs[lost - i] + logs[won] - logs[j] - logs[won - j]
        + logs[same] - logs[rest] - logs[same - rest] - logs[total] + logs[n] + logs[total - n]
    )  # fmt: skip
    return float(np.exp(np.where(fits, weight, -np.inf)).sum())


def _window(count: int, total: int, n: int) -> NDArray[np.int64]:
    share = count / total
    reach = 9 * math.sqrt(n * share * (1 - share) * (1 - n / total)) + 10
    return np.arange(max(0, math.floor(n * share - reach)), min(count, n, math.ceil(n * share + reach)) + 1)


@lru_cache(maxsize=4)
def _log_factorials(most: int) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])
