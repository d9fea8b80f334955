import math

import numpy as np
import pytest

from edgelathe.core.interval import Interval
from edgelathe.stats.quantile import (
    bounds,
    claim,
    interval,
    lower_rank,
    quantile,
    quantile_ranks,
    samples_needed,
    upper_rank,
)
from edgelathe.stats.special import binomial_above, binomial_below


def test_quantile_ranks():
    assert quantile_ranks(10, 0.5) == (2, 9)  # sign test: coverage 1 - 2(1 + 10)/2**10
    assert quantile_ranks(71, 0.95) is None  # 0.95**71 > 0.025: no interval for p95 yet
    assert quantile_ranks(72, 0.95) is not None  # 0.95**72 < 0.025
    assert quantile_ranks(0, 0.5) is None
    assert quantile_ranks(1, 0.5) is None


@pytest.mark.parametrize("n", [1, 5, 20, 59, 300, 5000])
@pytest.mark.parametrize("q", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_ranks_are_the_tightest_with_their_confidence(n, q, alpha):
    high = upper_rank(n, q, alpha)
    if high is None:
        assert binomial_above(n, n, q) > alpha
    else:
        assert binomial_above(high, n, q) <= alpha < binomial_above(high - 1, n, q)
    low = lower_rank(n, q, alpha)
    if low is None:
        assert binomial_below(0, n, q) > alpha
    else:
        assert binomial_below(low - 1, n, q) <= alpha < binomial_below(low, n, q)


def test_upper_rank_is_the_early_stopping_of_loadgen():
    # as many queries may be over the bound as a share of 10% over it makes likely enough
    n = 24_576
    over = n - upper_rank(n, 0.9, 0.01)
    assert binomial_below(over, n, 0.1) <= 0.01 < binomial_below(over + 1, n, 0.1)


def test_samples_needed_is_where_a_bound_begins():
    assert samples_needed(0.95) == 59  # 0.95**59 < 0.05: Wilks
    assert samples_needed(0.99) == 299
    assert samples_needed(0.5, 0.025) == 6
    for q in (0.5, 0.9, 0.95, 0.99, 0.999):
        n = samples_needed(q)
        assert upper_rank(n, q) == n
        assert upper_rank(n - 1, q) is None


def test_quantile_is_linear_between_neighbours():
    samples = np.array([1, 2, 3, 10])
    assert [quantile(samples, q) for q in (0, 0.5, 1)] == [1, 2.5, 10]
    values = np.sort(np.random.default_rng(0).exponential(size=37))
    for q in (0.01, 0.5, 0.9, 0.99):
        assert quantile(values, q) == pytest.approx(np.quantile(values, q))
    assert quantile(np.array([7]), 0.99) == 7
    with pytest.raises(ValueError, match="no samples"):
        quantile(np.array([]), 0.5)


def test_an_end_without_support_is_infinite():
    assert interval(np.array([3.0]), 0.5) == Interval(-math.inf, math.inf)
    assert interval(np.array([]), 0.5) == Interval(-math.inf, math.inf)
    low, high = (f(interval(np.arange(20.0), 0.9)) for f in (lambda i: i.low, lambda i: i.high))
    assert math.isfinite(low)
    assert high == math.inf
    assert interval(np.arange(10.0), 0.5) == Interval(1, 8)


def test_ties_and_equal_samples():
    assert interval(np.full(100, 4.0), 0.5) == Interval(4, 4)
    assert quantile(np.full(100, 4.0), 0.95) == 4


def test_fewer_effective_samples_widen_the_interval():
    samples = np.arange(1000.0)
    widths = [interval(samples, 0.5, size).high - interval(samples, 0.5, size).low for size in (1000, 250, 40)]
    assert widths == sorted(widths)
    assert widths[0] == interval(samples, 0.5).high - interval(samples, 0.5).low
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.1)
    assert interval(samples, 0.5, 2.9) == Interval(-math.inf, math.inf)
    assert bounds(samples, 0.5, 0.05, 5000) == bounds(samples, 0.5, 0.05)


def test_claim_of_a_few_samples():
    five = claim([3.0, 1.0, 2.0, 5.0, 4.0], 0.5)
    assert (five.value, five.lower, five.upper, five.n) == (3, 1, 5, 5)  # 2**-5 < 0.05
    four = claim([3.0, 1.0, 2.0, 5.0], 0.5)
    assert (four.value, four.lower, four.upper) == (2.5, -math.inf, math.inf)
    assert claim([7.0] * 9, 0.5).upper == 7


@pytest.mark.parametrize("bad", [(-1, 0.5, 0.05), (5, 0.0, 0.05), (5, 1.0, 0.05), (5, 0.5, 0.0)])
def test_impossible_questions_are_refused(bad):
    with pytest.raises(ValueError, match="between 0 and 1"):
        upper_rank(*bad)
