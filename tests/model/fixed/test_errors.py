"""Errors of layers against their definitions, and clipped values that are counted where the grid ends them."""

import numpy as np
import pytest

from edgelathe.model.fixed.errors import Layers, Sums
from edgelathe.model.fixed.limits import RELU, RELU6, Limits
from edgelathe.model.fixed.types import Answer, Grid, Value


def test_figures_follow_their_definitions():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 50_000)).astype(np.float32)
    y = x + rng.normal(size=x.shape).astype(np.float32) / 100
    sums = Sums()
    for row, other in zip(x, y, strict=True):
        sums.add(row, other)
    noise = (y.astype(float) - x) ** 2
    assert sums.mse == pytest.approx(noise.mean())
    assert sums.sqnr_db == pytest.approx(10 * np.log10((x.astype(float) ** 2).sum() / noise.sum()))
    assert sums.cosine == pytest.approx(float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum())), abs=1e-6)


def test_figures_that_do_not_exist_are_none():
    sums = Sums()
    assert (sums.mse, sums.sqnr_db, sums.cosine) == (None, None, None)
    sums.add(np.ones(3), np.ones(3))
    assert (sums.mse, sums.sqnr_db, sums.cosine) == (0.0, None, pytest.approx(1.0))
    zeros = Sums()
    zeros.add(np.zeros(3), np.ones(3))
    assert (zeros.mse, zeros.sqnr_db, zeros.cosine) == (1.0, None, None)


def test_tensors_of_different_shapes_are_not_compared():
    with pytest.raises(ValueError, match="against"):
        Sums().add(np.ones((2, 3)), np.ones((3, 2)))


def test_samples_that_fill_up_a_batch_do_not_count():
    layers, grid = Layers(), Grid.of(0.5)
    answer = Answer("a", "ADD", Value(np.array([[2], [4], [4]]), grid), np.array([[1.0], [2.0], [9.0]]), clipped=1)
    layers.watch(answer, filled=(2, 3))
    assert layers.errors()[0].mse == 0.0


@pytest.mark.parametrize("filled", [None, (2, 3)])
@pytest.mark.parametrize("shape", [(), (5, 2)])
def test_values_without_an_axis_of_samples_count_whole(shape, filled):
    layers = Layers()
    exact = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)
    value = np.zeros_like(exact)
    layers.watch(Answer("s", "ReduceSum", Value(value), exact), filled)
    assert layers.errors()[0].mse == pytest.approx((exact**2).mean())


@pytest.mark.parametrize(
    ("zero", "activation", "values", "clamped", "clipped"),
    [
        (0, 0, [-200, -128, 127, 128], [-128, -128, 127, 127], 2),
        (-128, RELU, [-200, -128, 127, 128], [-128, -128, 127, 127], 1),  # below zero it is the activation's work
        (0, RELU, [-5, 3, 300], [0, 3, 127], 1),
        (-128, RELU6, [-200, 300, -8], [-128, -8, -8], 0),  # 6 at -8: the grid reaches further
    ],
)
def test_what_an_activation_cuts_off_is_not_clipped(zero, activation, values, clamped, clipped):
    limits = Limits.of(Grid.of(0.05, zero), activation)
    got, count = limits.clamp(np.array(values), np.dtype(np.int8))
    assert (got.tolist(), count) == (clamped, clipped)
