import numpy as np
import pytest

from edgelathe.compress.weights import levels, second_order
from edgelathe.compress.weights.levels import Levels


def problem(weights):
    """Weights [1, 8, 96] and moments of inputs that hang together."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 96)) @ rng.normal(size=(96, 96))
    return weights, second_order.damped((x.T @ x / 400)[None], 0.1)[0]


NORMAL = np.random.default_rng(1).normal(size=(1, 8, 96))


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_normal_levels_lie_where_no_pair_of_products_leaves_16_bits_and_zero_is_one_of_them(bits):
    found = Levels.normal(bits)
    every = np.add.outer(found.values, found.offsets)
    assert len(set(found.values)) == 2**bits
    assert found.bits == bits
    assert abs(every).max() <= 64
    assert 0 in every


def test_the_nearest_level_is_the_nearest():
    found = Levels.normal(4)
    real = np.random.default_rng(2).normal(size=3000) * 30
    best = np.abs(real[:, None] - np.asarray(found.values)).min(axis=1)
    np.testing.assert_allclose(np.abs(found.nearest(real) - real), best)


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_weights_of_a_normal_distribution_lose_less_on_its_levels(bits):
    w, h = problem(NORMAL)
    none = np.zeros((1, 8), np.float32)
    even = second_order.round_to(w, h, Levels.of(bits, reduce=False), none)
    normal = second_order.round_to(w, h, Levels.normal(bits), none)
    assert normal.loss.sum() < 0.9 * even.loss.sum()
    moved = normal.integers[0] - normal.offset[0][:, None].astype(int)
    assert np.isin(moved, Levels.normal(bits).values).all()


def test_what_loses_less_is_chosen():
    assert levels.chosen(*problem(NORMAL), 4, "auto", reduce=False).values is not None
    on_a_grid, h = problem(np.rint(NORMAL * 2).clip(-8, 7))
    assert levels.chosen(on_a_grid, h, 4, "auto", reduce=False) == Levels(-8, 7)
    assert levels.chosen(NORMAL, h, 4, "even", reduce=False) == Levels(-8, 7)
    assert levels.chosen(NORMAL, h, 6, "normal", reduce=False) == Levels(-32, 31)


def test_outputs_of_zeros_stay_zero():
    w, h = problem(NORMAL * (np.arange(8) > 2)[:, None])
    found = second_order.round_to(w, h, Levels.normal(4), np.zeros((1, 8), np.float32))
    assert (found.integers[0, :3] == 0).all()
    assert (found.integers[0, 3:] != 0).any(axis=1).all()
