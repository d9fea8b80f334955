from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgelathe.compress.weights import assignment
from edgelathe.compress.weights.representatives import nearest

RNG = np.random.default_rng(2)


def loss(wanted, real, hessian):
    e = real - wanted
    return np.einsum("gof,gfh,goh->go", e, hessian, e)


def moments(groups, features):
    x = RNG.normal(size=(groups, 3 * features, features)) @ RNG.normal(size=(groups, features, features))
    return np.swapaxes(x, 1, 2) @ x / x.shape[1] + 0.01 * np.eye(features)


def test_without_correlation_it_is_the_nearest():
    wanted, levels, steps = RNG.normal(size=(2, 3, 70)), np.sort(RNG.normal(size=16)), np.full((2, 3), 1.5)
    indices, real = assignment.assign(wanted, np.broadcast_to(np.eye(70), (2, 70, 70)), levels, steps)
    np.testing.assert_array_equal(indices, nearest(wanted / 1.5, levels))
    np.testing.assert_allclose(real, levels[indices] * 1.5)


@pytest.mark.parametrize("own", [False, True])
def test_errors_are_made_up_for(own):
    g, o, f = 2, 5, 130
    wanted, steps, hessian = RNG.normal(size=(g, o, f)), RNG.uniform(0.5, 2, (g, o)), moments(g, f)
    levels = np.linspace(-5, 5, 12) + RNG.uniform(-0.3, 0.3, (g, o, 12) if own else 12)
    indices, real = assignment.assign(wanted, hessian, levels, steps)
    table = levels if own else np.broadcast_to(levels, (g, o, 12))
    np.testing.assert_allclose(real, np.take_along_axis(table, indices, 2) * steps[:, :, None])
    close = nearest(wanted / steps[:, :, None], levels[:, :, None] if own else levels)
    plain = np.take_along_axis(table, close, 2) * steps[:, :, None]
    assert loss(wanted, real, hessian).sum() < 0.6 * loss(wanted, plain, hessian).sum()


def test_two_inputs_are_near_the_best_of_all_pairs():
    hessian, levels = np.array([[[1.0, 0.6], [0.6, 1.0]]]), np.array([-1.0, 0.2, 1.0])
    wanted = RNG.normal(size=(1, 40, 2))
    _, real = assignment.assign(wanted, hessian, levels, np.ones((1, 40)))
    pairs = np.array(list(itertools.product(levels, levels)))[:, None, None]
    best = np.min([loss(wanted, np.broadcast_to(p, wanted.shape), hessian) for p in pairs], axis=0)
    assert (loss(wanted, real, hessian) >= best - 1e-12).all()
    assert loss(wanted, real, hessian).sum() < 1.2 * best.sum()


def test_presumed_moments_keep_the_sums():
    wanted, levels = RNG.normal(size=(1, 20, 64)), np.linspace(-2.5, 2.5, 6)
    _, real = assignment.assign(wanted, assignment.presumed(1, 64), levels, np.ones((1, 20)))
    plain = levels[nearest(wanted, levels)]
    drift = [np.abs((v - wanted).sum(axis=2)).mean() for v in (real, plain)]
    assert drift[0] < 0.5 * drift[1]
