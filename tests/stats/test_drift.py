import numpy as np
import pytest

from edgelathe.stats.drift import IRRELEVANT, drift
from support.simulated import autoregressive


def blocks(levels, rng, size=10):
    return [1e6 * level * np.exp(0.01 * rng.normal(size=size)) for level in levels]


def test_a_run_that_grows_slower_and_one_that_grows_faster():
    rng = np.random.default_rng(0)
    up = drift(blocks(np.linspace(1, 1.1, 30), rng))
    assert up.significant
    assert up.relative == pytest.approx(0.1, abs=0.02)
    assert up.p < 1e-6
    down = drift(blocks(np.linspace(1.1, 1, 30), rng))
    assert down.significant
    assert down.relative == pytest.approx(-0.1, abs=0.02)
    assert up.to_json() == {"relative": up.relative, "p": up.p, "significant": True}


def test_a_drift_too_small_to_matter_is_none():
    d = drift([np.array([1e6 + 100 * i]) for i in range(100)])
    assert d.p < 1e-6
    assert 0 < d.relative < IRRELEVANT
    assert not d.significant


def test_one_disturbed_block_is_no_drift():
    values = [1e6] * 20
    values[-1] = 5e6
    assert not drift([np.array([v]) for v in values]).significant


@pytest.mark.parametrize(("rho", "n", "most"), [(0.0, 20, 0.03), (0.5, 50, 0.05), (0.8, 50, 0.09)])
def test_what_wanders_is_rarely_called_a_drift(rho, n, most):
    rng, runs = np.random.default_rng(1), 300
    series = (1e6 * np.exp(0.03 * autoregressive(rng, n, rho)) for _ in range(runs))
    assert sum(drift([np.array([v]) for v in s]).significant for s in series) <= most * runs


def test_few_or_equal_blocks_say_nothing():
    assert drift([np.array([1.0])] * 30).p == 1
    assert not drift([np.array([1.0])] * 30).significant
    few = drift([np.array([float(i)]) for i in range(1, 8)])
    assert (few.p, few.significant) == (1, False)
    assert few.relative > 1
    assert drift([np.array([5])]).relative == 0
    with pytest.raises(ValueError, match="no blocks"):
        drift([np.array([])])
