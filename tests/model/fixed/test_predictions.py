"""Differences of predictions: flips, top-1 change, and f(y) - f(z) for the functions on offer."""

import numpy as np
import pytest

from edgelathe.core.errors import UserError
from edgelathe.model.fixed.predictions import classification, regression

Y = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
Z = np.array([[0.8, 0.2], [0.7, 0.3], [0.4, 0.6], [0.1, 0.9]])


def test_flips_are_counted_and_told_apart_by_the_labels():
    got = classification(Y, Z, np.array([0, 1, 1, 0]))
    assert (got.n, got.changed, got.lost, got.won, got.top1_change) == (4, 2, 1, 1, 0.0)
    got = classification(Y, Z, np.array([0, 1, 0, 1]))
    assert (got.lost, got.won, got.top1_change) == (2, 0, -0.5)
    assert got.to_json()["changed_share"] == 0.5


def test_without_labels_only_flips_are_known():
    got = classification(Y, Z, None)
    assert (got.changed, got.lost, got.won, got.top1_change) == (2, None, None, None)


@pytest.mark.parametrize(
    ("function", "mean", "largest"), [("identity", 0.25, 4.0), ("abs", -0.25, 2.0), ("square", -0.75, 4.0)]
)
def test_each_function_has_its_error(function, mean, largest):
    y, z = np.array([[1.0, -2.0], [0.0, 2.0]]), np.array([[1.0, 2.0], [-1.0, 1.0]])
    want = {"identity": y - z, "abs": np.abs(y) - np.abs(z), "square": y**2 - z**2}[function]
    got = regression(y, z, function)
    assert got.mean == pytest.approx(want.mean())
    assert got.mean_abs == pytest.approx(np.abs(want).mean())
    assert got.rmse == pytest.approx(np.sqrt((want**2).mean()))
    assert got.max_abs == np.abs(want).max()


def test_a_function_of_the_users(tmp_path):
    (tmp_path / "mine.py").write_text("def area(v):\n    return v[:, 0] * v[:, 1]\ndef bad(v):\n    return v / 0\n")
    got = regression(Y, Z, "mine:area", tmp_path)
    assert got.mean == pytest.approx((Y[:, 0] * Y[:, 1] - Z[:, 0] * Z[:, 1]).mean())


@pytest.mark.parametrize(
    ("name", "said"),
    [("sqare", "did you mean 'square'"), ("nowhere:f", "cannot be imported"), ("math:nothing", "has no function")],
)
def test_a_function_that_is_not_there_is_named(name, said):
    with pytest.raises(UserError, match=said):
        regression(Y, Z, name)


def test_a_function_that_gives_no_number_is_refused(tmp_path):
    (tmp_path / "odd.py").write_text(
        "import numpy as np\ndef nan(v):\n    return v * np.nan\ndef broken(v):\n    v.nope()\n"
    )
    for name, said in (("odd:nan", "gave NaN"), ("odd:broken", "failed: AttributeError")):
        with pytest.raises(UserError, match=said):
            regression(Y, Z, name, tmp_path)
