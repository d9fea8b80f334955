import numpy as np
import pytest

from edgelathe.compress.corrections.affine_fit import Map, Sums, least_squares, likeliest, log_loss
from edgelathe.compress.corrections.held_out import FOLDS, HELD

RNG = np.random.default_rng(0)


def summed(o, f):
    sums = Sums(o.shape[1])
    for k in range(FOLDS):
        sums.add(k, o[k::FOLDS], f[k::FOLDS])
    return sums


def test_a_true_map_is_found_exactly():
    scale, shift = np.array([0.5, 1.0, 2.0, 1.0]), np.array([0.1, -3.0, 0.0, 0.0])
    o = RNG.normal(size=(200, 4)) + 2
    found = least_squares(summed(o, o * scale + shift))
    assert found.scale == pytest.approx(scale)
    assert found.shift == pytest.approx(shift, abs=1e-9)
    assert not found.changes[3]


def test_errors_from_sums_are_those_of_the_values():
    o, f = RNG.normal(size=(80, 3)), RNG.normal(size=(80, 3))
    by = Map(np.array([0.5, 1.0, 3.0]), np.array([1.0, 0.0, -2.0]))
    want = np.square(by(o[HELD::FOLDS]) - f[HELD::FOLDS]).sum(axis=0)
    assert summed(o, f).error([HELD], by) == pytest.approx(want)


def test_noise_alone_moves_few_channels_and_constants_are_only_shifted():
    o = RNG.normal(size=(400, 200))
    assert least_squares(summed(o, o + RNG.normal(size=o.shape))).changes.mean() < 0.5
    still = least_squares(summed(np.full((40, 1), 2.0), np.full((40, 1), 5.0)))
    assert (still.scale[0], still.shift[0]) == pytest.approx((1, 3))


def test_the_likeliest_map_undoes_a_wrong_bias_and_beats_every_neighbour():
    n, k = 2000, 5
    o, fold = RNG.normal(size=(n, k)) * 3, np.arange(n) % FOLDS
    p = np.exp(o) / np.exp(o).sum(axis=1, keepdims=True)
    labels = np.array([RNG.choice(k, p=row) for row in p])
    wrong = o + np.array([2.0, 0, 0, 0, -2.0])
    found = likeliest(wrong, labels, fold)
    assert found.shift[4] - found.shift[0] == pytest.approx(4, abs=0.6)
    held = fold == HELD
    assert log_loss(found(wrong[held]), labels[held]) < log_loss(wrong[held], labels[held]) - 0.05


def test_few_labels_hardly_move_the_map():
    o, labels = RNG.normal(size=(24, 4)) * 3, RNG.integers(0, 4, 24)
    found = likeliest(o, labels, np.arange(24) % FOLDS)
    assert np.isfinite([*found.scale, *found.shift]).all()
    assert (found.scale > 0).all()
