import math
from statistics import NormalDist

import numpy as np
import pytest

from edgelathe.stats.boundary import level, repeated


@pytest.mark.parametrize(("looks", "constant"), [(1, 1.960), (2, 2.178), (3, 2.289), (5, 2.413), (10, 2.555)])
def test_equal_spacing_is_pococks_table(looks, constant):
    # Jennison and Turnbull, table 2.1, for two-sided 5%
    at_each = level(0.025, range(1, looks + 1))
    assert NormalDist().inv_cdf(1 - at_each) == pytest.approx(constant, abs=2e-3)


def test_the_chance_to_err_is_what_was_asked_for_whatever_the_spacing():
    rng, information = np.random.default_rng(0), np.array([1, 1.1, 5, 20, 21])
    increments = np.sqrt(np.diff(information, prepend=0)) * rng.normal(size=(100_000, 5))
    z = np.cumsum(increments, 1) / np.sqrt(information)
    boundary = NormalDist().inv_cdf(1 - level(0.05, information.tolist()))
    assert (z >= boundary).any(1).mean() == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 100_000))


def test_more_looks_cost_more_but_less_than_bonferroni():
    levels = [repeated(0.05, count) for count in range(1, 11)]
    assert levels[0] == pytest.approx(0.05, abs=1e-5)
    assert levels == sorted(levels, reverse=True)
    assert all(at_each > 1.3 * 0.05 / (i + 1) for i, at_each in enumerate(levels) if i > 2)


def test_looks_that_nearly_coincide_count_once():
    assert level(0.05, [1, 1 + 1e-9, 1 + 2e-9]) == pytest.approx(0.05, rel=1e-2)


def test_impossible_requests_are_refused():
    for alpha, information in ((0.5, [1]), (0.0, [1]), (0.05, []), (0.05, [0, 1])):
        with pytest.raises(ValueError, match="alpha"):
            level(alpha, information)
    with pytest.raises(ValueError, match="0 looks"):
        repeated(0.05, 0)
