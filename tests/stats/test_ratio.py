import json
import math
from itertools import product

import numpy as np
import pytest

from edgelathe.stats.ratio import MOST_PAIRS, calls_needed, compare, joined, signed_rank_quantile


def measured(rng, pairs, ratio=1.0, drift=0.0, noise=0.01, size=20):
    """Blocks of a and b in turns, in random order within each pair, under a drift that both feel."""
    walk = np.cumsum(rng.normal(0, drift, 2 * pairs)) + rng.normal(0, noise, 2 * pairs)
    a, b = [], []
    for i in range(pairs):
        for place, (blocks, factor) in zip(rng.permutation(2), ((a, 1.0), (b, ratio)), strict=True):
            level = 1e6 * factor * math.exp(walk[2 * i + place])
            blocks.append((level * (1 + 0.1 * np.abs(rng.normal(size=size)))).astype(np.int64))
    return a, b


def test_a_ratio_of_one_moment_is_undecided():
    c = compare([np.array([100])], [np.array([50])])
    assert (c.ratio, c.low, c.high, c.lower, c.upper, c.verdict) == (
        pytest.approx(0.5),
        0,
        math.inf,
        0,
        math.inf,
        "undecided",
    )
    assert c.claim.upper == math.inf
    assert json.loads(json.dumps(c.to_json())) == {"ratio": c.ratio, "low": 0, "high": None, "verdict": "undecided"}


def test_six_pairs_are_the_fewest_for_an_interval():
    blocks = [np.array([100 + i]) for i in range(6)]
    half = [b / 2 for b in blocks]
    assert compare(blocks[:5], half[:5]).verdict == "undecided"
    assert compare(blocks, half).verdict == "faster"
    assert compare(half, blocks).verdict == "slower"
    assert compare(half, blocks).ratio == pytest.approx(2)


def test_equal_series_are_the_same():
    blocks = [np.array([7, 7, 7])] * 8
    c = compare(blocks, blocks)
    assert (c.low, c.ratio, c.high, c.verdict) == (1, 1, 1, "same")


def test_within_the_margin_is_the_same_even_where_the_interval_excludes_one():
    a = [np.array([1000 + i]) for i in range(10)]
    b = [x * 1.01 for x in a]
    assert compare(a, b).verdict == "same"
    assert compare(a, b, margin=0.005).verdict == "slower"


@pytest.mark.parametrize(("pairs", "drift"), [(8, 0.0), (8, 0.03), (20, 0.03)])
def test_a_model_against_itself_is_rarely_called_different(pairs, drift):
    rng, runs = np.random.default_rng(4), 400
    wrong = sum(compare(*measured(rng, pairs, drift=drift)).verdict in ("faster", "slower") for _ in range(runs))
    assert wrong / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_a_real_difference_is_found_under_drift_and_disturbance():
    rng, runs, inside, found = np.random.default_rng(5), 100, 0, 0
    for _ in range(runs):
        a, b = measured(rng, 16, ratio=0.9, drift=0.02)
        a[3], b[9] = a[3] * 20, b[9] * 30  # another process had the core for two blocks
        c = compare(a, b)
        found += c.verdict == "faster"
        assert c.low <= c.lower <= c.ratio <= c.upper <= c.high
        inside += c.low <= 0.9 <= c.high
    assert inside >= 88
    assert found >= 95


def test_signed_ranks_are_exact():
    for n in (1, 4, 6, 9):
        sums = [sum(r for r, s in zip(range(1, n + 1), signs, strict=True) if s) for signs in product((0, 1), repeat=n)]
        for alpha in (0.025, 0.05):
            fits = [t for t in range(max(sums) + 1) if sum(s <= t for s in sums) / 2**n <= alpha]
            assert signed_rank_quantile(n, alpha) == (max(fits) if fits else None)
    assert signed_rank_quantile(10, 0.025) == 8  # Hollander and Wolfe, table A.4


def test_tails_join_blocks_until_they_have_samples():
    pairs = [(np.arange(30), np.arange(20))] * 10
    assert len(joined(pairs, "p50")) == len(joined(pairs, "mean")) == 10
    assert len(joined(pairs, "p90")) == 10  # 10 samples a side would do
    groups = joined(pairs, "p99")  # 200 samples, about 100 a group
    assert [len(y) for _, y in groups] == [100, 100]
    assert sum(len(x) for x, _ in groups) == 300
    assert len(joined(pairs[:2], "p99")) == 1


def test_a_long_run_is_compared_quickly_and_uses_all_its_blocks():
    pairs = [(np.array([100 + i % 7]), np.array([90 + i % 5])) for i in range(6000)]
    groups = joined(pairs, "p50")
    assert len(groups) == MOST_PAIRS
    assert sum(len(x) for x, _ in groups) == 6000
    assert compare(*zip(*pairs, strict=True)).verdict == "faster"


@pytest.mark.parametrize("name", ["p50", "p90", "p95", "p99", "mean"])
def test_calls_needed_is_where_an_interval_begins(name):
    rng, n = np.random.default_rng(0), calls_needed(name)
    blocks = np.array_split(rng.exponential(size=n) + 1, 12)
    assert math.isfinite(compare(blocks, blocks, name).high)
    half = np.array_split(rng.exponential(size=n // 2) + 1, min(5, n // 2))
    assert math.isinf(compare(half, half, name).high)


def test_what_has_no_ratio_is_refused():
    one = [np.array([1])]
    with pytest.raises(ValueError, match="no pair"):
        compare([], [])
    with pytest.raises(ValueError, match="no pair"):
        compare([np.array([])], one)
    with pytest.raises(ValueError, match="argument 2 is"):
        compare(one, one * 2)
    with pytest.raises(ValueError, match="no ratio"):
        compare([np.array([0])], one)
