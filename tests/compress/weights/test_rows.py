import numpy as np
import pytest

from edgelathe.compress.weights import rows as rows_module
from edgelathe.compress.weights.rows import Rows, Stack, products


def rows(**given):
    """A layer that reads something else than the float one did."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 400, 12)).astype(np.float32)
    weights = rng.normal(size=(1, 5, 12))
    y = (x + rng.normal(size=x.shape) * 0.3) @ np.swapaxes(weights, 1, 2)
    return x, weights, Rows(x, y.astype(np.float32), **given)


@pytest.mark.parametrize("groups", [1, 3])
def test_products_are_those_of_all_rows(groups):
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(groups, 9001, n)).astype(np.float32) for n in (4, 2))
    np.testing.assert_allclose(products(a, b), np.einsum("grm,grn->gmn", a.astype(float), b), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(products(a, a), np.einsum("grm,grn->gmn", a.astype(float), a), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("beside", [False, True])
def test_each_fit_to_what_is_not_hidden_loses_less_behind_the_clamp(beside):
    x, _, of = rows(low=0.0, high=2.0)
    if beside:
        of = Rows(x, of.y, np.random.default_rng(5).normal(size=of.y.shape).astype(np.float32), 0.0, 2.0)
    other = 0 if of.beside is None else of.beside

    def error(weights):
        made, wanted = (np.clip(v + other, 0, 2) for v in (x @ np.swapaxes(weights, 1, 2), of.y))
        return float(np.square(made - wanted).sum())

    plain = np.linalg.lstsq(x[0], of.y[0], rcond=None)[0].T[None]
    errors = [error(plain)]
    for _ in range(3):
        y = of.unhidden(plain, np.zeros((1, 5)))
        plain = np.linalg.lstsq(x[0], y[0], rcond=None)[0].T[None]
        errors.append(error(plain))
    assert errors[3] < 0.98 * errors[0]
    assert errors == sorted(errors, reverse=True)


def test_without_a_clamp_all_is_wanted_as_it_is():
    _, w, of = rows()
    assert not of.is_clamped
    np.testing.assert_array_equal(of.unhidden(w, np.zeros((1, 5))), of.y)


@pytest.mark.parametrize("beside", [False, True])
def test_the_sum_of_what_is_not_hidden_is_that_of_all_its_parts(beside, monkeypatch):
    _, w, of = rows(low=0.0, high=2.0)
    if beside:
        of = Rows(of.x, of.y, np.random.default_rng(5).normal(size=of.y.shape).astype(np.float32), 0.0, 2.0)
    bias = np.linspace(-1, 1, 5)[None]
    whole = of.unhidden(w, bias).sum(axis=1, dtype=np.float64)
    assert np.abs(whole - of.y.sum(axis=1)).max() > 1
    monkeypatch.setattr(rows_module, "_AT_ONCE", 1)
    monkeypatch.setattr(rows_module, "_BLOCK", 64)  # 400 rows: the last part is not full
    np.testing.assert_allclose(of.unhidden_sum(w, bias), whole, rtol=1e-6)


@pytest.mark.parametrize("expected", [0, 3, 7, 20])
def test_rows_stack_up_whatever_number_was_expected(expected):
    parts = [np.random.default_rng(i).normal(size=(n, 2, 5)).astype(np.float32) for i, n in enumerate((3, 3, 1))]
    stack = Stack(expected)
    for part in parts:
        stack.add(part)
    whole = stack.whole()
    assert whole.flags.c_contiguous
    np.testing.assert_array_equal(whole, np.moveaxis(np.concatenate(parts), 1, 0))
