"""Allocations against all that there are."""

import itertools

import numpy as np
import pytest

from edgelathe.compress.mixed import allocate
from edgelathe.compress.mixed.allocate import Choice, best, path, total


def layers(seed, count=6, forms=4):
    """More bytes lose less, by factors of any size."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        sizes = np.sort(rng.choice(400, forms, replace=False)) + 1
        losses = np.sort(rng.exponential(size=forms))[::-1] * 10 ** rng.uniform(-2, 2)
        out.append([Choice(i, int(b), float(v)) for i, (b, v) in enumerate(zip(sizes, losses, strict=True))])
    return out


def exhaustive(of, budget):
    fits = [total(of, p)[1] for p in itertools.product(*(range(len(la)) for la in of)) if total(of, p)[0] <= budget]
    return min(fits)


@pytest.mark.parametrize("seed", range(6))
def test_no_other_allocation_that_fits_loses_less(seed):
    of = layers(seed)
    least, most = (total(of, (i,) * len(of))[0] for i in (0, 3))
    for budget in np.linspace(least, most, 7).astype(int):
        picks = best(of, int(budget))
        size, loss = total(of, picks)
        assert size <= budget
        assert loss == pytest.approx(exhaustive(of, budget))


def test_counted_in_coarse_units_the_budget_is_kept_and_little_is_lost(monkeypatch):
    of = layers(1)
    budget = (total(of, (0,) * 6)[0] + total(of, (3,) * 6)[0]) // 2
    exact = total(of, best(of, budget))[1]
    monkeypatch.setattr(allocate, "_UNITS", 60)
    size, loss = total(of, best(of, budget))
    assert size <= budget
    assert exact <= loss <= exhaustive(of, budget - 6 * (budget // 60 + 1))


def test_what_fits_nowhere_is_none_and_what_fits_wholly_loses_least():
    of = layers(2)
    assert best(of, total(of, (0,) * 6)[0] - 1) is None
    assert best(of, total(of, (0,) * 6)[0]) == (0,) * 6
    assert best(of, 10**9) == (3,) * 6


def test_equal_losses_take_the_fewest_bytes():
    of = [[Choice(8, 80, 1.0), Choice(4, 40, 1.0), Choice(2, 20, 1.0)]] * 3
    assert best(of, 10_000) == (2, 2, 2)


def test_a_layer_without_a_choice_is_paid_first():
    of = [[Choice(8, 80, 0.0)], [Choice(4, 40, 5.0), Choice(8, 80, 0.0)]]
    assert best(of, 120) == (0, 0)
    assert best(of, 159) == (0, 0)
    assert best(of, 160) == (0, 1)


@pytest.mark.parametrize("seed", range(4))
def test_each_step_of_the_path_is_best_at_its_own_size(seed):
    of = layers(seed)
    ways = path(of)
    sizes, losses = zip(*(total(of, p) for p in ways), strict=True)
    assert sizes == tuple(sorted(sizes))
    assert losses == tuple(sorted(losses, reverse=True))
    assert ways[0] == (0,) * 6
    assert ways[-1] == (3,) * 6
    for size, loss in zip(sizes, losses, strict=True):
        assert loss == pytest.approx(exhaustive(of, size))
    gains = [(a - b) / (y - x) for a, b, x, y in zip(losses, losses[1:], sizes, sizes[1:], strict=False)]
    assert gains == sorted(gains, reverse=True)


def test_forms_that_cost_more_and_lose_more_are_never_on_the_path():
    of = [[Choice(2, 20, 3.0), Choice(3, 30, 4.0), Choice(4, 40, 1.0), Choice(8, 80, 1.0)]]
    assert path(of) == [(0,), (2,)]
