import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelathe.stats.paired import FEWEST, Bootstrap, bootstrap, mcnemar, paired_drop, replicates, resampled
from edgelathe.stats.scores import mean_of


def outcomes(n, lost, won):
    """Whether each of n samples was right before, and is right now."""
    base, now = np.ones(n, bool), np.ones(n, bool)
    now[:lost] = False
    base[lost : lost + won] = False
    return base, now


@given(st.integers(1, 400), st.data())
def test_the_bound_is_fleiss_with_its_correction(n, data):
    lost = data.draw(st.integers(0, n))
    won = data.draw(st.integers(0, n - lost))
    d = paired_drop(*outcomes(n, lost, won))
    assert (d.value, d.lost, d.won, d.n) == ((lost - won) / n, lost, won, n)
    assert -1 <= d.low <= d.lower <= d.value <= d.upper <= d.high <= 1
    reach = 1.645 * np.sqrt(max(0, lost + won - (lost - won) ** 2 / n)) / n
    assert abs(d.upper - d.value - reach) <= 0.5 * reach + 1.5 / n
    assert abs(d.value - d.lower - reach) <= 0.5 * reach + 1.5 / n


def test_nothing_changed():
    d = paired_drop(*outcomes(600, 0, 0))
    assert (d.value, d.lower, d.upper, d.high, d.p) == (0, -1 / 600, 1 / 600, 1 / 600, 1)


def test_a_worked_example():
    # 20 lost and 10 won of 100: value 0.1, error sqrt(30 - 1)/100 = 0.05385
    d = paired_drop(*outcomes(100, 20, 10))
    assert d.value == pytest.approx(0.1)
    assert (d.low, d.high) == (pytest.approx(0.1 - 0.11555, abs=1e-4), pytest.approx(0.1 + 0.11555, abs=1e-4))
    assert d.upper == pytest.approx(0.1 + 1.64485 * 0.05385 + 0.01, abs=1e-4)
    assert d.claim.upper == d.upper


def test_coverage_of_the_one_sided_bound():
    rng, n, drop, changed = np.random.default_rng(0), 300, 0.02, 0.06
    held = 0
    for _ in range(1000):
        u = rng.random(n)
        lost, won = u < (changed + drop) / 2, u > 1 - (changed - drop) / 2
        held += paired_drop(~won, ~lost).upper >= drop
    assert held >= 940


def test_mcnemar_is_the_sign_test():
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(1, 7) == mcnemar(7, 1) == pytest.approx(2 * 9 / 256)
    assert mcnemar(4, 4) == 1


def test_what_is_no_pair_is_refused():
    for base, now in (([], []), ([True], [True, False]), ([[True]], [[True]])):
        with pytest.raises(ValueError, match="no paired samples"):
            paired_drop(np.array(base, bool), np.array(now, bool))


def mean(values):
    return mean_of(lambda o, _: o)(np.asarray(values, float), np.empty(0))


def test_resamples_draw_n_of_n_and_repeat_with_the_seed():
    counts = np.concatenate(resampled(50, Bootstrap(200, seed=3)))
    assert counts.shape == (200, 50)
    assert (counts.sum(1) == 50).all()
    again, other = (np.concatenate(resampled(50, Bootstrap(200, seed=s))) for s in (3, 4))
    assert (counts == again).all()
    assert (counts != other).any()
    assert counts.var() == pytest.approx(0.98, abs=0.05)  # 1 - 1/n: multinomial
    large = resampled(3_000_000, Bootstrap(2))
    assert [c.shape for c in large] == [(1, 3_000_000)] * 2  # memory stays bounded


def test_bootstrap_of_a_mean_is_near_students_interval():
    values = np.random.default_rng(1).normal(5, 2, 100)
    e = bootstrap(mean(values), 100)
    reach = 1.984 * values.std(ddof=1) / 10
    assert e.value == pytest.approx(values.mean())
    assert (e.low, e.high) == (pytest.approx(e.value - reach, abs=0.05), pytest.approx(e.value + reach, abs=0.05))
    assert e.low < e.lower < e.value < e.upper < e.high
    assert bootstrap(mean(values), 100) == e


def test_bootstrap_covers_for_few_samples():
    rng, held = np.random.default_rng(2), 0
    for seed in range(300):
        values = rng.normal(size=15)
        e = bootstrap(mean(values), 15, Bootstrap(400, seed))
        held += e.low <= 0 <= e.high
    assert held >= 273  # 0.91: plain percentiles give 0.90 to 0.91 only


def test_too_few_samples_have_infinite_bounds():
    for n in (1, FEWEST - 1):
        e = bootstrap(mean(np.arange(n)), n)
        assert (e.low, e.high, e.lower, e.upper) == (-math.inf, math.inf, -math.inf, math.inf)
        assert e.value == (n - 1) / 2
    assert len(replicates(mean([1.0]), 1)) == 0


def test_a_metric_that_is_often_undefined_has_infinite_bounds():
    rare = np.zeros(20)
    rare[0] = 1

    def share(weights):
        hits = weights @ rare
        return np.divide(hits, hits, out=np.full(len(hits), np.nan), where=hits > 0)

    assert bootstrap(share, 20).high == math.inf


def test_equal_values_have_no_width_but_the_step():
    e = bootstrap(mean(np.full(30, 0.5)), 30, Bootstrap(100, step=1 / 30))
    assert (e.low, e.high) == (pytest.approx(0.5 - 1 / 30), pytest.approx(0.5 + 1 / 30))
