import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelathe.calibrate import histogram, scales
from edgelathe.calibrate.statistics import Statistics


def statistics(values):
    values = np.asarray(values, np.float32)
    return Statistics(
        "t", float(values.min()), float(values.max()), histogram.extend(histogram.EMPTY, values), values.shape
    )


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.booleans())
def test_zero_is_exact_and_the_range_is_covered(a, b, signed):
    low, high = min(a, b), max(a, b)
    g = scales.affine(low, high, signed)
    assert g.low <= g.zero <= g.high
    assert g.scale > 0
    reach = ((g.low - g.zero) * g.scale, (g.high - g.zero) * g.scale)
    if g.scale > scales._SMALLEST and max(abs(low), abs(high)) > 1e-20:
        assert reach[0] <= min(low, 0) + 0.51 * g.scale
        assert reach[1] >= max(high, 0) - 0.51 * g.scale


def test_grids_by_hand():
    assert scales.affine(0, 255, signed=False) == scales.Grid(1.0, 0, 0, 255)
    assert scales.affine(0, 255, signed=True) == scales.Grid(1.0, -128, -128, 127)
    assert scales.affine(-1, 1, signed=True).zero in (-1, 0)  # half way: ties to even
    assert scales.affine(0, 0, signed=True).scale == 1.0


def test_store_rounds_to_even_and_clips():
    g = scales.Grid(0.5, 10, 0, 255)
    assert g.store(np.array([0.25, 0.75, -100, 1000], np.float32)).tolist() == [10, 12, 0, 255]


def squared_error(values, low, high):
    g = scales.affine(low, high, signed=False)
    back = (g.store(values.astype(np.float32)).astype(np.float64) - g.zero) * g.scale
    return ((values - back) ** 2).mean()


@pytest.mark.parametrize("draw", ["normal", "laplace", "exponential", "uniform"])
def test_mse_is_as_good_as_a_search_over_ranges(draw):
    values = getattr(np.random.default_rng(0), draw)(size=200_000)
    got = squared_error(values, *scales.mse(statistics(values), 256, 0))
    best = min(squared_error(values, values.min() * k, values.max() * k) for k in np.linspace(0.2, 1, 81))
    assert got <= 1.02 * best


def test_mse_cuts_a_lone_outlier_that_minmax_keeps():
    values = np.append(np.random.default_rng(0).normal(size=100_000), 1000.0)
    assert scales.minmax(statistics(values), 256, 0)[1] == 1000
    assert squared_error(values[:-1], *scales.mse(statistics(values), 256, 0)) < 1  # minmax rounds in steps of 4


def test_percentile_against_numpy():
    values = np.random.default_rng(0).normal(size=100_000)
    low, high = scales.percentile(statistics(values), 256, 99.0)
    assert (low, high) == pytest.approx(np.quantile(values, [0.01, 0.99]), abs=0.01)


def test_entropy_keeps_a_bell_and_cuts_its_far_tail():
    bell = np.random.default_rng(0).normal(size=200_000)
    low, high = scales.entropy(statistics(np.append(bell, [60.0, -60.0])), 256, 0)
    assert 2.5 < high < 30
    assert -30 < low < -2.5


@pytest.mark.parametrize("rule", scales.RULES)
@pytest.mark.parametrize("values", [[0.0], [5.0], [-5.0], [1e-30], [0.0] * 100 + [1.0], [-1e30, 1e30]])
def test_every_rule_takes_any_tensor(rule, values):
    low, high = scales.RULES[rule](statistics(values), 256, 99.9)
    g = scales.affine(low, high, signed=True)
    assert np.isfinite([low, high, g.scale]).all()


def test_weights_per_channel_reach_the_largest_integer_and_dead_channels_stay_zero():
    w = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32)
    w[2] = 0
    s = scales.weight_scales(w, 0, 127)
    q = scales.store_weights(w, s, 0, 127)
    assert q.dtype == np.int8
    assert np.abs(q).max(axis=(1, 2, 3)).tolist() == [127, 127, 0, 127]
    assert s[2] == 1
    assert np.abs(q * s.reshape(-1, 1, 1, 1) - w).max() <= s.max() / 2 * 1.001


def test_pixels_keep_their_own_grid_and_a_grid_between_them_is_avoided():
    pixels = np.arange(256, dtype=np.float32)
    assert scales.fit(pixels, [(0, 250), (0, 255)], signed=False) == scales.Grid(1.0, 0, 0, 255)
    centred = (pixels - 127.5) / np.float32(127.5)  # zero lies between two pixels
    g = scales.fit(centred, [(-1, 1)], signed=True)

    def error(grid):
        return (((grid.store(centred).astype(float) - grid.zero) * grid.scale - centred) ** 2).mean()

    assert error(g) < 0.5 * error(scales.affine(-1, 1, signed=True))
