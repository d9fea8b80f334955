"""Several fresh processes: the interval is about the next one."""

import numpy as np
import pytest

from edgelathe.stats import latency, processes, ratio


def groups(rng, offsets, blocks=20, calls=30):
    return [
        [np.rint(1e6 * (1 + o + 0.01 * rng.normal(size=calls))).astype(np.int64) for _ in range(blocks)]
        for o in offsets
    ]


def test_equal_processes_cost_little_and_layout_luck_is_seen():
    rng = np.random.default_rng(1)
    same = processes.spread(groups(rng, [0] * 5))
    assert not same.matters
    lucky = processes.spread(groups(rng, [0, 0.05, 0, 0.04, 0.01]))
    assert lucky.matters
    assert lucky.share == pytest.approx(0.05, abs=0.01)


def test_the_interval_covers_the_median_of_a_process_drawn_anew():
    rng = np.random.default_rng(2)
    hits = narrow = 0
    for _ in range(120):
        got = groups(rng, 0.02 * rng.normal(size=5), blocks=6)
        ci = processes.summarize(got).ci["p50"]
        hits += ci.low <= 1.0 <= ci.high
        inner = latency.summarize([b for g in got for b in g]).ci["p50"]
        narrow += inner.low <= 1.0 <= inner.high
    assert hits >= 109
    assert narrow < hits


def test_claims_bound_one_side():
    rng = np.random.default_rng(3)
    got = groups(rng, 0.02 * rng.normal(size=5))
    claim, ci = processes.claim(got, "p50"), processes.summarize(got).ci["p50"]
    assert ci.low <= claim.lower <= claim.value <= claim.upper <= ci.high


def test_comparisons_over_processes_are_mirrored_and_wrong_in_a_twentieth():
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(120):
        a, b = (groups(rng, 0.02 * rng.normal(size=5), blocks=6) for _ in range(2))
        found, back = processes.compare(a, b), processes.compare(b, a)
        assert found.ratio == pytest.approx(1 / back.ratio)
        wrong += not found.low <= 1 <= found.high
    assert wrong <= 13
    a, b = groups(rng, [0] * 5), groups(rng, [0.1] * 5)
    assert processes.compare(a, b).verdict == "slower"
    assert processes.compare(a, groups(rng, [0.0] * 5)).verdict == "same"


def test_fewer_than_two_processes_bound_nothing():
    assert processes.reach([1.0], 0.05) == float("inf")
    assert isinstance(processes.compare(groups(np.random.default_rng(0), [0, 0, 0]),
                                        groups(np.random.default_rng(1), [0, 0, 0])), ratio.Comparison)  # fmt: skip


def test_no_bound_on_a_time_lies_below_zero():
    rng = np.random.default_rng(5)
    got = groups(rng, [0.0, 0.0, 40.0])
    assert processes.summarize(got).ci["p99"].low > 0
    assert processes.claim(got, "p99").lower > 0
