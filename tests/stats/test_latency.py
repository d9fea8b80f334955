import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelathe.core.interval import Interval
from edgelathe.core.result import Latency
from edgelathe.stats.latency import QUANTILES, STATISTICS, bounded, claim, statistic, summarize
from edgelathe.stats.quantile import samples_needed
from support.simulated import KINDS, latencies, true_quantile


def exponential(blocks, size, seed=0):
    rng = np.random.default_rng(seed)
    return [(1e6 * (1 + rng.exponential(0.1, size))).astype(np.int64) for _ in range(blocks)]


@given(st.lists(st.lists(st.integers(1, 10**12), min_size=0, max_size=40), min_size=1, max_size=8).filter(any))
def test_order_and_intervals_hold_for_any_samples(blocks):
    lat = summarize([np.array(b, np.int64) for b in blocks])
    assert 0 < lat.min <= lat.p50 <= lat.p90 <= lat.p95 <= lat.p99 <= lat.max
    assert lat.min <= lat.mean * (1 + 1e-12)
    assert lat.n == sum(map(len, blocks))
    assert all(getattr(lat, name) in lat.ci[name] for name in STATISTICS)
    for name in STATISTICS:
        c = claim([np.array(b, np.int64) for b in blocks], name)
        assert c.value == getattr(lat, name)
        # a one-sided bound is never farther than the end of the two-sided interval
        assert lat.ci[name].low <= c.lower
        assert c.upper <= lat.ci[name].high


def test_milliseconds_from_nanoseconds():
    lat = summarize([np.array([1_000_000, 2_000_000], np.int64), np.array([3_000_000], np.int64)])
    assert (lat.min, lat.p50, lat.mean, lat.max, lat.n) == (1, 2, 2, 3, 3)


def test_one_sample_supports_no_bound():
    lat = summarize([np.array([5_000_000], np.int64)])
    assert (lat.min, lat.p50, lat.p99, lat.mean, lat.max, lat.n) == (5, 5, 5, 5, 5, 1)
    assert lat.ci["p50"] == lat.ci["p90"] == lat.ci["mean"] == Interval(-math.inf, math.inf)
    assert lat.ci["p99"] == Interval(5, math.inf)  # one sample is below p99 in 99 of 100 cases
    assert claim([np.array([5_000_000])], "p50").upper == math.inf


def test_no_sample_is_no_summary():
    for nothing in ([], [np.array([], np.int64)]):
        with pytest.raises(ValueError, match="no latency samples"):
            summarize(nothing)


def test_equal_samples_have_no_width_where_supported():
    lat = summarize([np.full(100, 2_000_000, np.int64)] * 5)
    assert lat.ci["p50"] == lat.ci["p99"] == lat.ci["mean"] == Interval(2, 2)


def test_a_tail_is_bounded_only_when_the_samples_support_it():
    n = samples_needed(0.99)
    rng = np.random.default_rng(0)
    samples = rng.permutation(np.arange(1, n + 1)) * 1000
    assert claim([samples[:-1]], "p99").upper == math.inf
    assert summarize([samples]).ci["p99"].high == math.inf
    many = summarize(exponential(20, 100))
    assert math.isfinite(many.ci["p99"].high)


def test_json_of_an_unsupported_tail_is_null():
    lat = summarize(exponential(2, 20))
    doc = json.loads(json.dumps(lat.to_json()))
    assert doc["p99_ci"][1] is None
    assert Latency.from_json(doc) == lat


def test_statistic_by_name():
    samples = np.array([3, 1, 2, 10])
    assert statistic("p50")(samples) == 2.5
    assert statistic("mean")(samples) == 4
    with pytest.raises(KeyError):
        statistic("p12")


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_intervals_cover_the_truth_of_every_kind_of_series(kind):
    rng, runs, hits = np.random.default_rng(3), 240, {"p50": 0, "p95": 0}
    for i in range(runs):
        series = latencies(rng, kind, *((10, 50), (20, 25), (40, 10))[i % 3])
        ordered = np.sort(series.reshape(-1))
        for name in hits:
            hits[name] += true_quantile(kind, QUANTILES[name]) in bounded(list(series), ordered, name, 0.025)[1]
    # three standard errors of the simulation below 94%
    assert all(hit / runs >= 0.94 - 3 * math.sqrt(0.06 * 0.94 / runs) for hit in hits.values()), hits


def test_a_claim_for_more_looks_is_wider():
    blocks = exponential(20, 50)
    once, often = claim(blocks, "p50"), claim(blocks, "p50", looks=9)
    assert often.lower < once.lower < once.value == often.value < once.upper < often.upper
