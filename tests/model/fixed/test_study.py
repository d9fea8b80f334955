"""A simulation scored: metrics with and without labels, targets, and outputs that are no numbers."""

from __future__ import annotations

import numpy as np
import pytest

from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.model.fixed.simulate import Simulation
from edgelathe.model.fixed.study import study

EXACT = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], np.float32)
REAL = np.array([[0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.1, 0.9]], np.float32)


def scored(labels=None, metric="top1", real=REAL, function=None):
    found = Simulation(real, real, EXACT, ())
    return study(found, Dataset("d.npz", {"x": np.zeros((4, 1))}, labels, metric), function)


def test_labels_decide_where_there_are_some():
    got = scored(np.array([0, 1, 1, 1]))
    assert (got.exact, got.simulated, got.n) == (0.75, 0.5, 4)
    assert (got.classification.changed, got.classification.lost) == (1, 1)
    assert got.regression is None


def test_without_labels_the_float_model_is_right():
    got = scored()
    assert (got.exact, got.simulated) == (1.0, 0.75)


def test_targets_have_errors_of_values():
    got = scored(np.array([[1.0, 0.0]] * 4), "mae")
    assert got.classification is None
    assert got.regression.function == "identity"
    assert got.regression.max_abs == pytest.approx(0.5)
    assert got.exact == pytest.approx(np.abs(EXACT - [1, 0]).mean())


def test_a_function_may_be_asked_for_beside_classes():
    got = scored(np.array([0, 1, 0, 1]), function="square").to_json()
    want = np.square(EXACT.astype(float)) - np.square(REAL.astype(float))
    assert got["error"]["regression"]["rmse"] == pytest.approx(np.sqrt(np.square(want).mean()))
    assert got["error"]["classification"]["changed"] == 1


def test_outputs_that_are_no_numbers_are_refused():
    broken = REAL.copy()
    broken[1, 0] = np.nan
    with pytest.raises(UserError, match="NaN in the outputs of 1 of 4 samples"):
        scored(np.array([0, 1, 0, 1]), real=broken)
