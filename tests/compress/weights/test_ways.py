import itertools

import numpy as np
import pytest

from edgelathe.compress.weights import second_order, ways
from edgelathe.compress.weights.levels import Levels
from edgelathe.compress.weights.ways import Rounded


def problem(groups, outputs, features, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(groups, 3 * features, features)) @ rng.normal(size=(groups, features, features))
    h, _ = second_order.damped(np.swapaxes(x, 1, 2) @ x / x.shape[1], 0.05)
    turned = np.linalg.cholesky(h[:, ::-1, ::-1])
    return rng.normal(size=(groups, outputs, features)), h, np.swapaxes(turned[:, ::-1, ::-1], 1, 2)


def unrounded(groups, outputs, features):
    """What any way of rounding betters."""
    shape = (groups, outputs)
    scale, loss = np.full(shape, 0.25, np.float32), np.full(shape, np.inf)
    return Rounded(np.zeros((*shape, features), np.int8), scale, np.zeros(shape, np.int8), loss)


@pytest.mark.parametrize("levels", [Levels.of(4, reduce=False), Levels.normal(4)], ids=["even", "normal"])
def test_more_ways_lose_less_and_tell_what_they_lose(monkeypatch, levels):
    w, h, factor = problem(2, 6, 70)
    start = unrounded(2, 6, 70)
    if levels.values:
        start.scale[:] = 0.03
        start.offset[:] = 7
    lost = []
    for most in (2, 16):
        monkeypatch.setattr(ways, "_MOST", most)
        found = ways.followed(start, w, factor, levels)
        e = w - found.real()
        np.testing.assert_allclose(np.einsum("gof,gfk,gok->go", e, h, e), found.loss, rtol=1e-5)
        lost.append(found.loss.sum())
    assert lost[1] < 0.97 * lost[0]


def test_with_as_many_ways_as_there_are_the_best_is_found():
    w, h, factor = problem(1, 3, 4)
    levels = Levels(-2, 1)
    found = ways.followed(unrounded(1, 3, 4), w * 0.2, factor, levels)
    every = np.array(list(itertools.product(range(-2, 2), repeat=4))) * 0.25
    e = 0.2 * w[0][:, None] - every
    best = np.einsum("oqf,fk,oqk->oq", e, h[0], e).min(axis=1)
    np.testing.assert_allclose(found.loss[0], best, rtol=1e-9)


def test_what_is_better_already_and_what_is_too_large_stays(monkeypatch):
    w, _, factor = problem(1, 6, 20)
    start = unrounded(1, 6, 20)
    start.loss[0, :2] = 0
    found = ways.followed(start, w, factor, Levels.of(4, reduce=False))
    assert not found.integers[0, :2].any()
    assert found.integers[0, 2:].any(axis=1).all()
    monkeypatch.setattr(ways, "_WORK", 100)
    assert ways.followed(start, w, factor, Levels.of(4, reduce=False)) is start
