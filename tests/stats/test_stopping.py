import math
from collections import Counter

import numpy as np
import pytest

from edgelathe.stats.paired import paired_drop
from edgelathe.stats.proportion import wilson
from edgelathe.stats.stopping import LOOKS, decide, decide_share, looks
from support.simulated import answers


def test_looks_end_with_all_samples_and_are_few():
    for total in (1, 49, 50, 51, 52, 60, 600, 2600, 100_000):
        at = looks(total)
        assert at[-1] == total
        assert len(at) <= LOOKS
        assert list(at) == sorted(set(at))
        assert all(n >= min(50, total) for n in at)
    assert looks(0) == ()
    assert looks(2000)[:2] == (50, 92)
    assert looks(2000)[-2] == 1600


def test_a_hopeless_candidate_goes_out_early():
    assert decide(30, 2, 50, 600, 0.015) == "out"
    assert decide(0, 0, 50, 600, 0.015) == "continue"
    assert decide(0, 0, 0, 600, 0.015) == "continue"
    assert decide(1, 0, 1, 600, 0.015) == "continue"  # one lost sample of one shows nothing


def test_a_good_candidate_is_in_before_the_end():
    assert decide(0, 0, 1000, 10_000, 0.02) == "in"
    assert decide(0, 0, 50, 10_000, 0.02) == "continue"
    assert decide(8, 7, 5000, 10_000, 0.02) == "in"
    assert decide(90, 7, 5000, 10_000, 0.02) == "continue"


def test_what_cannot_change_any_more_is_certain():
    assert decide(60, 0, 595, 600, 0.05) == "out"
    assert decide(30, 0, 600, 600, 0.05) == "continue"  # exactly the limit
    assert decide(31, 0, 600, 600, 0.05) == "out"
    assert decide(30, 0, 600, 600, 0.05, lenient=True) == "in"
    assert decide(30, 0, 600, 600, 0.05, prove=True) == "out"
    assert decide(0, 0, 597, 600, 0.05) == "in"


def test_all_samples_say_what_the_paired_bound_says():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n, limit = int(rng.integers(20, 400)), float(rng.uniform(0.001, 0.1))
        before, after = rng.random(n) < 0.8, rng.random(n) < 0.79
        drop = paired_drop(before, after)
        assert (decide(drop.lost, drop.won, n, n, limit) == "in") == (drop.upper <= limit)
        assert (decide(drop.lost, drop.won, n, n, limit) == "out") == (drop.value > limit)
        assert (decide(drop.lost, drop.won, n, n, limit, prove=True) == "out") == (drop.upper > limit)
        right = int(after.sum())
        least = float(rng.uniform(0.7, 0.9))
        assert (decide_share(right, n, n, least) == "in") == (wilson(right, n, 0.05).low >= least)
        assert (decide_share(right, n, n, least) == "out") == (right / n < least)


def ends(rng, lost, won, total, limit, **how):
    """How an evaluation with so many lost and won among all samples ends, and after which share of them."""
    lost_at, won_at = answers(rng, lost, won, total)
    for n in looks(total):
        said = decide(int(lost_at[n - 1]), int(won_at[n - 1]), n, total, limit, **how)
        if said != "continue":
            break
    return said, n / total


@pytest.mark.parametrize(
    ("total", "limit", "lost", "won"),
    [(500, 0.005, 5, 3), (2000, 0.01, 35, 15), (2000, 0.01, 20, 0), (2600, 0.02, 156, 104), (10_000, 0.01, 175, 75)],
)
def test_a_candidate_at_the_limit_is_rarely_lost(total, limit, lost, won):
    # the drop itself is the limit: neither `in` nor `out` is right
    rng, runs, said = np.random.default_rng(0), 150, Counter()
    said.update(ends(rng, lost, won, total, limit)[0] for _ in range(runs))
    for wrong in ("in", "out"):
        assert said[wrong] <= 0.05 * runs + 3 * math.sqrt(0.05 * 0.95 * runs)


@pytest.mark.parametrize(("total", "limit", "lost", "won"), [(2000, 0.01, 9, 3), (10_000, 0.01, 100, 30)])
def test_a_bound_just_above_the_limit_is_rarely_called_within(total, limit, lost, won):
    def keeps(all_lost):
        return decide(all_lost, won, total, total, limit) == "in"

    lost = next(x for x in range(lost, total) if not keeps(x))
    assert keeps(lost - 1)
    rng, runs, said = np.random.default_rng(1), 150, Counter()
    said.update(ends(rng, lost, won, total, limit, prove=True)[0] for _ in range(runs))
    assert said["in"] <= 0.05 * runs + 3 * math.sqrt(0.05 * 0.95 * runs)


def test_clear_candidates_take_a_part_of_the_samples():
    rng = np.random.default_rng(2)
    cases = [(0, 0, "in"), (20, 18, "in"), (60, 10, "out"), (400, 100, "out"), (4000, 50, "out")]
    used = []
    for lost, won, wanted in cases:
        found = [ends(rng, lost * 2, won * 2, 10_000, 0.005 if wanted == "out" else 0.02) for _ in range(10)]
        assert {said for said, _ in found} == {wanted}
        used += [share for _, share in found]
    assert np.mean(used) < 0.3


def test_shares_are_settled_too():
    assert decide_share(480, 500, 10_000, 0.9) == "in"
    assert decide_share(400, 500, 10_000, 0.9) == "out"
    assert decide_share(452, 500, 10_000, 0.9) == "continue"
    assert decide_share(900, 1000, 1000, 0.9) == "continue"  # not below, but not shown to be above
    assert decide_share(900, 1000, 1000, 0.9, lenient=True) == "in"
    assert decide_share(900, 1000, 1000, 0.9, prove=True) == "out"


def test_impossible_counts_are_refused():
    for bad in ((3, 3, 5, 10), (1, 0, 11, 10), (-1, 0, 5, 10), (7, -2, 5, 10)):
        with pytest.raises(ValueError, match="lost"):
            decide(*bad, 0.01)
    with pytest.raises(ValueError, match="right"):
        decide_share(6, 5, 10, 0.5)
