import numpy as np
import pytest

from edgelathe.compress.weights import second_order
from edgelathe.compress.weights.levels import Levels


def problem(seed=0, groups=1, outputs=6, features=100):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(groups, 4 * features, features)) @ rng.normal(size=(groups, features, features))
    return rng.normal(size=(groups, outputs, features)), np.swapaxes(x, 1, 2) @ x / x.shape[1]


def loss(weights, hessian, integers, scale):
    e = weights - integers * scale[:, :, None]
    return np.einsum("gof,gfk,gok->go", e, hessian, e)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_second_order_loses_less_than_the_nearest_integers(bits):
    w, h = problem(groups=3)
    levels = Levels.of(bits, reduce=False)
    h, _ = second_order.damped(h, 0.01)
    found = second_order.round_to(w, h, levels, np.zeros((3, 6), np.float32))
    assert levels.low <= found.integers.min() < found.integers.max() <= levels.high
    # what the columns say they lose is what the weights lose, over a block's edge too
    np.testing.assert_allclose(found.loss, loss(w, h, found.integers, found.scale), rtol=1e-5)
    nearest = second_order.nearest_to(w, found.scale, levels)
    assert found.loss.sum() < 0.6 * loss(w, h, nearest, found.scale).sum()


def test_one_input_at_a_time_with_independent_inputs_is_the_nearest_integer():
    w, _ = problem(features=20)
    found = second_order.round_to(w, np.eye(20)[None], Levels.of(4, reduce=False), np.zeros((1, 6), np.float32))
    np.testing.assert_array_equal(found.integers, second_order.nearest_to(w, found.scale, Levels(-8, 7)))


def test_weights_on_a_grid_stay_as_they_are():
    w, h = problem()
    w = np.rint(w.clip(-3, 3) * 7 / 3)
    w[:, :, 0] = 7
    found = second_order.round_to(w, second_order.damped(h, 0.1)[0], Levels(-7, 7), np.zeros((1, 6), np.float32))
    np.testing.assert_array_equal(found.integers * found.scale[:, :, None], w)


def test_one_scale_for_all_outputs_and_a_least_scale():
    w, h = problem()
    shared = second_order.round_to(w, h, Levels(-8, 7), np.zeros((1, 6), np.float32), shared=True)
    assert len(np.unique(shared.scale)) == 1
    held = second_order.round_to(w, h, Levels(-8, 7), np.full((1, 6), 5, np.float32))
    assert held.scale.min() >= 5


def test_the_pull_fits_what_the_float_layer_made():
    w, _ = problem(features=10)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 10))
    read = x + rng.normal(size=x.shape) * 0.3 * np.arange(10) / 10
    h, c = read.T @ read / 500, w[0] @ x.T @ read / 500
    damped, d = second_order.damped(h[None], 1e-9)
    best = second_order.pulled(w, damped, c[None], d)[0]
    want = x @ w[0].T
    exact = np.linalg.lstsq(read, want, rcond=None)[0].T
    np.testing.assert_allclose(best, exact, atol=1e-6)


def test_nothing_is_undefined_where_nothing_was_read_and_no_weight_is_left():
    w, h = np.zeros((2, 3, 4)), np.zeros((2, 4, 4))
    h, d = second_order.damped(h, 0.1)
    pulled = second_order.pulled(w, h, np.zeros((2, 3, 4)), d)
    found = second_order.round_to(pulled, h, Levels(-8, 7), np.zeros((2, 3), np.float32))
    assert not found.integers.any()
    assert np.isfinite(found.scale).all()


def test_levels_say_their_bits():
    assert [Levels.of(b, reduce=False).bits for b in (2, 3, 4, 5, 6, 7, 8)] == [2, 3, 4, 5, 6, 7, 8]
    assert Levels.of(8, reduce=True) == Levels(-64, 64)
