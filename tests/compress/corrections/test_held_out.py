import numpy as np
import pytest

from edgelathe.compress.corrections import held_out
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError


def data(n, seed=0):
    return Dataset("calib", {"x": np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)})


def test_folds_are_of_one_size_and_do_not_hang_on_the_order():
    whole = data(41)
    fold = held_out.folds(whole, "step")
    assert sorted(np.bincount(fold)) == [10, 10, 10, 11]
    turned = Dataset("calib", {"x": whole.inputs["x"][::-1]})
    assert (held_out.folds(turned, "step")[::-1] == fold).all()


def test_equal_samples_are_never_on_both_sides():
    x = data(12).inputs["x"]
    fold = held_out.folds(Dataset("calib", {"x": np.concatenate([x, x, x[:5]])}), "step")
    assert (fold[:12] == fold[12:24]).all()
    assert (fold[:5] == fold[24:]).all()


def test_too_few_different_samples_are_refused():
    x = np.repeat(data(7).inputs["x"], 4, axis=0)
    with pytest.raises(UserError, match=r"calib: bias-correct: 7 different samples are too few"):
        held_out.folds(Dataset("calib", {"x": x}), "bias-correct")


def test_a_mean_gains_where_it_is_the_same_in_every_fold_and_loses_where_it_is_chance():
    rng, fold = np.random.default_rng(3), np.arange(400) % held_out.FOLDS
    error = np.stack([0.5 + 0.1 * rng.normal(size=400), np.where(fold == 0, 4.0, -1.0)], axis=1)
    assert held_out.gains(error, fold).tolist() == [True, False]
    assert held_out.gains(np.where((fold == held_out.HELD)[:, None], 1e6, error), fold).tolist() == [True, False]
