import math

import numpy as np
import pytest

from edgelathe.core.interval import Interval
from edgelathe.stats.throughput import claim, throughput


def measured(rng, n, spread=0.05):
    samples = rng.integers(50, 200, n)
    ns = samples * 1e6 * np.exp(spread * rng.normal(size=n) - spread**2 / 2)
    return [(int(s), int(t)) for s, t in zip(samples, ns, strict=True)]


def test_all_samples_over_all_time():
    rate, ends = throughput([(100, 1_000_000_000), (300, 1_000_000_000)] * 3)
    assert rate == 200
    assert 0 < ends.low < 200 < ends.high < math.inf
    assert throughput([(100, 10**9)] * 5) == (100, Interval(100, 100))


def test_few_blocks_support_no_interval():
    assert throughput([(10, 10**9)] * 3) == (10, Interval(0, math.inf))
    assert claim([(10, 10**9)]).upper == math.inf


def test_it_covers_as_often_as_it_says():
    rng, runs = np.random.default_rng(0), 400
    for n in (5, 10, 30):
        hits = sum(1000 in throughput(measured(rng, n))[1] for _ in range(runs))
        assert hits / runs >= 0.95 - 4 * math.sqrt(0.05 * 0.95 / runs)


def test_a_claim_is_one_sided_and_wider_for_more_looks():
    blocks = measured(np.random.default_rng(1), 20)
    rate, ends = throughput(blocks)
    one, many = claim(blocks), claim(blocks, looks=9)
    assert one.value == rate
    assert ends.low < one.lower < rate < one.upper < ends.high
    assert many.lower < one.lower
    assert many.upper > one.upper
    assert one.n == sum(s for s, _ in blocks)


def test_blocks_without_samples_or_time_are_refused():
    for bad in ([], [(0, 10)], [(10, 0)]):
        with pytest.raises(ValueError, match="every block"):
            throughput(bad)
