import math
from collections import Counter

import numpy as np
import pytest

from edgelathe.stats import latency, ratio
from edgelathe.stats.sequential import limit_settled, looks, ratio_settled, settled
from support.simulated import autoregressive, turns


def stopped(a, b, most):
    """The comparison at the look where it ended, and the number of pairs."""
    at = looks(most)
    for k, n in enumerate(at, 1):
        if settled(a[:n], b[:n], k, len(at)):
            return ratio.compare(a[:n], b[:n], looks=len(at)), n
    raise AssertionError("it never ended")


def verdicts(noise, true, runs, most, seed=1):
    rng, found, inside, pairs = np.random.default_rng(seed), Counter(), 0, []
    for _ in range(runs):
        c, n = stopped(*turns(rng, most, true, noise), most)
        found[c.verdict] += 1
        inside += c.low <= true <= c.high
        pairs.append(n)
    return found, inside / runs, float(np.mean(pairs))


def test_looks_grow_and_end_with_the_last_pair():
    assert looks(150) == (10, 14, 20, 28, 40, 56, 79, 111, 150)
    assert looks(10) == (10,)
    assert looks(3) == (3,)
    assert looks(30, first=20) == (20, 28, 30)
    for most, first in ((0, 10), (10, 0)):
        with pytest.raises(ValueError, match="at most"):
            looks(most, first)


@pytest.mark.parametrize("noise", ["quiet", "busy", "placed"])
def test_a_model_against_itself_after_an_adaptive_stop(noise):
    found, inside, _ = verdicts(noise, 1.0, 200, 150)
    assert found["faster"] + found["slower"] <= 0.075 * 200 + 3 * math.sqrt(0.075 * 0.925 * 200)
    assert inside >= 0.95 - 4 * math.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize(("true", "most"), [(1.05, 150), (1.02, 300)])
def test_a_slower_model_is_found_on_a_busy_machine(true, most):
    found, inside, pairs = verdicts("busy", true, 100, most)
    assert found["slower"] >= 90
    assert found["faster"] == 0
    assert inside >= 0.9
    assert pairs < most / 2  # and it stopped early


def test_a_percent_between_two_processes_is_waited_for_until_it_is_the_same():
    a = [np.array([1e6 + 100 * (i % 7)]) for i in range(20)]
    b = [x * 1.015 for x in a]
    assert ratio.compare(a, b, margin=0.01).verdict == "slower"
    assert settled(a, b, 1, 5)  # the same at the default margin
    assert settled(a, b, 1, 5, margin=0.01)
    assert not settled(a, [x * (0.97 if i % 3 else 1.02) for i, x in enumerate(a)], 1, 5, margin=0.03)
    wide = [x * (1.004 if i % 2 else 1.026) for i, x in enumerate(a)]
    assert ratio.compare(a, wide, looks=5).verdict == "slower"
    assert not settled(a, wide, 1, 5)  # slower for certain, but perhaps by less than the margin
    assert settled(a, wide, 5, 5)


def test_exchanging_the_models_gives_the_mirror_image():
    rng, pairs = np.random.default_rng(3), []
    for true in (1.0, 1.015, 1.05, 0.97):
        for noise in ("quiet", "busy", "placed"):
            for n in (5, 10, 40):
                pairs.append(turns(rng, n, true, noise))
    opposite = {"faster": "slower", "slower": "faster", "same": "same", "undecided": "undecided"}
    for a, b in pairs:
        for count in (1, 9):
            one, other = ratio.compare(a, b, looks=count), ratio.compare(b, a, looks=count)
            assert other.verdict == opposite[one.verdict]
            assert one.ratio * other.ratio == pytest.approx(1)
            if math.isfinite(one.high):
                assert one.low * other.high == pytest.approx(1)
                assert one.lower * other.upper == pytest.approx(1)
            assert settled(a, b, 1, count) == settled(b, a, 1, count)


def test_a_bound_on_a_latency_holds_after_stopping_for_it():
    rng, at, runs, wrong, early = np.random.default_rng(2), looks(60), 150, Counter(), 0
    for _ in range(runs):
        blocks = list(1e6 * np.exp(0.05 * autoregressive(rng, 60 * 20, 0.5)).reshape(60, 20))
        for k, n in enumerate(at, 1):
            if limit_settled(blocks[:n], "p50", 1.0, k, len(at)):  # the limit is the truth: the hardest case
                c = latency.claim(blocks[:n], "p50", looks=len(at))
                wrong.update(low=c.lower > 1, high=c.upper < 1)
                early += n < at[-1]
                break
    assert max(wrong.values(), default=0) <= 0.05 * runs + 3 * math.sqrt(0.05 * 0.95 * runs)
    assert early <= 0.3 * runs


def test_a_clear_limit_ends_at_the_first_look():
    rng = np.random.default_rng(0)
    a = [1e6 * (1 + 0.01 * rng.random(50)) for _ in range(10)]
    b = [x * 0.5 for x in a]
    for limit in (0.9, 1.1):
        assert limit_settled(a, "p50", limit, 1, 9)
    assert not limit_settled(a, "p50", float(np.median(a)) / 1e6, 1, 9)
    assert limit_settled(a, "p50", float(np.median(a)) / 1e6, 9, 9)
    assert not limit_settled(a[:1], "p99", 5.0, 1, 9)  # too few samples support no bound
    assert ratio_settled(a, b, "p50", 0.6, 1, 9)
    assert ratio_settled(a, b, "p50", 0.4, 1, 9)
    shaken = [x * (0.5 + 0.1 * (i % 3)) for i, x in enumerate(a)]
    assert not ratio_settled(a, shaken, "p50", 0.6, 1, 9)


def test_a_look_that_is_not_planned_is_refused():
    for k in (0, 4):
        with pytest.raises(ValueError, match="look"):
            settled([np.ones(1)], [np.ones(1)], k, 3)
