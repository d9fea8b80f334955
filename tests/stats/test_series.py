import math
from statistics import NormalDist

import numpy as np
import pytest

from edgelathe.stats.latency import QUANTILES, bounded
from edgelathe.stats.series import effective_size, steady, trend_probability


def autoregressive(rng, n, rho):
    noise = rng.normal(size=n) * math.sqrt(1 - rho * rho)
    x = np.empty(n)
    x[0] = rng.normal()
    for i in range(1, n):
        x[i] = rho * x[i - 1] + noise[i]
    return x


def test_effective_size_of_an_autoregressive_series():
    rng = np.random.default_rng(0)
    for rho in (0.0, 0.5, 0.8):
        sizes = [effective_size(autoregressive(rng, 4000, rho).reshape(20, 200)) / 4000 for _ in range(20)]
        assert 0.75 < np.median(sizes) * (1 + rho) / (1 - rho) < 1.1  # on the safe side, by a little


def test_what_a_block_shares_counts_once():
    rng = np.random.default_rng(0)
    blocks = rng.normal(size=(30, 1)) + 0.01 * rng.normal(size=(30, 100))
    assert effective_size(blocks) < 60


def test_few_or_equal_samples():
    assert effective_size([]) == 0
    assert effective_size([np.array([5.0])]) == 1
    assert effective_size([np.array([1.0, 2.0]), np.array([], float)]) == 2
    assert effective_size([np.full(50, 3.7)] * 6) == 300
    assert effective_size([np.full(10, float(i)) for i in range(6)]) <= 6
    assert 1 <= effective_size([np.arange(100.0)]) < 10  # a drift


@pytest.mark.parametrize(
    ("kind", "blocks", "size", "least"),
    [
        ("iid", 20, 10, 0.94),
        ("iid", 10, 100, 0.94),
        ("ar", 20, 10, 0.94),
        ("ar", 10, 100, 0.94),
        ("block", 20, 30, 0.92),
    ],
)
def test_intervals_cover_as_often_as_they_say(kind, blocks, size, least):
    rng, runs, names = np.random.default_rng(5), 250, ("p50", "p90", "mean")
    hits = dict.fromkeys(names, 0)
    for _ in range(runs):
        if kind == "block":
            shape = math.sqrt(0.2) * rng.normal(size=(blocks, 1)) + math.sqrt(0.8) * rng.normal(size=(blocks, size))
        else:
            shape = autoregressive(rng, blocks * size, 0.5 if kind == "ar" else 0.0).reshape(blocks, size)
        samples = np.exp(0.2 * shape)
        ordered = np.sort(samples.reshape(-1))
        for name in names:
            at = NormalDist().inv_cdf(QUANTILES[name]) if name in QUANTILES else 0.1
            hits[name] += math.exp(0.2 * at) in bounded(list(samples), ordered, name, 0.025)[1]
    # four standard errors of the simulation below what is promised would be a mistake
    assert all(hit / runs >= least - 4 * math.sqrt(0.95 * 0.05 / runs) for hit in hits.values()), hits
    assert sum(hits.values()) / runs / len(names) >= least - 0.01, hits


def test_independent_samples_cost_little():
    rng = np.random.default_rng(1)
    sizes = [effective_size(rng.exponential(size=(20, 50))) for _ in range(100)]
    assert np.median(sizes) > 900


def test_steady_needs_five_blocks():
    assert not steady([])
    assert not steady([np.full(10, 5)] * 4)
    assert steady([np.full(10, 5)] * 5)
    assert not steady([np.full(10, 5)] * 4 + [np.array([], np.int64)])


def test_a_warm_up_is_seen_and_its_end_too():
    rng = np.random.default_rng(2)
    warming = [1e6 * (1 + math.exp(-i / 5) + 0.01 * rng.normal(size=50)) for i in range(40)]
    first = next(i for i in range(5, 41) if steady(warming[:i]))
    assert math.exp(-first / 5) < 0.1
    assert not steady(warming[:8])
    assert not steady(warming[7::-1])  # a device that grows hot


def test_noise_is_steady_most_of_the_time():
    rng = np.random.default_rng(3)
    fine = [steady([1e6 * (1 + 0.1 * rng.normal()) + rng.normal(size=20) for _ in range(8)]) for _ in range(300)]
    assert np.mean(fine) > 0.87  # both tails at 5%


def test_trend_probabilities_are_kendalls():
    assert trend_probability(5, 10) == pytest.approx(1 / 120)  # one order of 5! is ascending
    assert trend_probability(4, 6) == pytest.approx(1 / 24)
    assert trend_probability(5, 8) == pytest.approx(0.042, abs=5e-4)  # Kendall's table
    assert trend_probability(8, 16) == pytest.approx(0.031, abs=5e-4)
    assert trend_probability(5, 11) == 0
    assert trend_probability(5, -10) == pytest.approx(1)
