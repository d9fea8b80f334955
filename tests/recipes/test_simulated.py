"""What `simulate` runs and on what: data set aside only where they are needed, recipes applied first."""

from __future__ import annotations

import numpy as np
import pytest

from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.core.recipe import Recipe, Step
from edgelathe.model.fixed.prepare import Wanted
from edgelathe.model.fixed.types import Bits
from edgelathe.recipes.simulated import subject
from support.tiny_tflite import Net, T


@pytest.fixture(scope="module")
def model():
    w = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    x, y = T("x", (1, 6), "float32"), T("y", (1, 3), "float32")
    net = Net()
    net.op("FULLY_CONNECTED", [x, T("w", (), "float32", values=w), None], [y], table="FullyConnectedOptions")
    return net.build([x], [y])


def data(n, seed=0, name="eval.npz"):
    rng = np.random.default_rng(seed)
    return Dataset(name, {"x": rng.normal(size=(n, 6)).astype(np.float32)}, rng.integers(0, 3, n))


def test_a_part_is_set_aside_and_not_judged_on(model):
    got = subject(model, data(40), None, Wanted(), None)
    assert (len(got.calibration), len(got.samples)) == (10, 30)
    judged = {row.tobytes() for row in got.samples.inputs["x"]}
    assert not judged & {row.tobytes() for row in got.calibration.inputs["x"]}
    assert got.notes[0] == "no --calib: 10 of the 40 samples are for calibration, not evaluated on"
    assert got.reference is None


def test_nothing_is_set_aside_where_no_ranges_are_wanted(model):
    got = subject(model, data(40), None, Wanted(Bits(weights=4)), None, limit=25)
    assert got.calibration is None
    assert len(got.samples) == 25
    assert got.notes == ()


def test_samples_that_are_in_both_are_told(model):
    got = subject(model, data(12), data(12, name="calib.npz"), Wanted(), None)
    assert any("12" in note for note in got.notes)


def test_a_recipe_makes_another_model_and_keeps_the_one_given(model):
    done = []
    recipe = Recipe((Step("int8"),))
    got = subject(model, data(40), data(20, 1, "calib.npz"), Wanted(), (recipe, "int8"), on_step=done.append)
    assert done == ["int8"]
    assert got.reference is model
    assert got.model.sha256 != model.sha256
    assert len(got.samples) == 40


def test_too_few_samples_to_set_aside_are_refused(model):
    with pytest.raises(UserError, match="too few"):
        subject(model, data(5), None, Wanted(), None)
