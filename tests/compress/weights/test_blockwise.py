import numpy as np
import pytest

from edgelathe.compress.weights import blockwise
from edgelathe.compress.weights.blockwise import Form
from edgelathe.compress.weights.second_order import damped

FORMS = [
    Form(4, 32, s, negative=n, half=h) for s, n, h in ((True, True, False), (True, False, True), (False, True, True))
]


def weights(rows=12, inputs=100, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, inputs)) * rng.uniform(0.1, 3, (rows, 1))


def hessian(inputs, groups=1, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(groups, 4 * inputs, inputs)) @ rng.normal(size=(groups, inputs, inputs))
    return damped(np.swapaxes(x, 1, 2) @ x / x.shape[1], 0.01)[0]


def plain(w, block):
    """Round to nearest with the range of each block, as ONNX Runtime's quantizer: symmetric, a scale of either sign."""
    cut = np.pad(w, ((0, 0), (0, -w.shape[1] % block))).reshape(len(w), -1, block)
    largest = np.take_along_axis(cut, np.abs(cut).argmax(2)[..., None], 2)
    scale = largest / -8
    q = np.clip(np.rint(cut / scale), -8, 7)
    return (q * scale).reshape(len(w), -1)[:, : w.shape[1]]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_nearest_codes_with_scales_of_least_error_beat_those_of_the_range(form):
    w = weights()
    found = blockwise.nearest(w, form)
    assert found.codes.max() <= 15
    assert found.scale.shape == found.zero.shape == (12, 4)
    assert (found.scale > 0).all() or form.negative
    if form.symmetric:
        assert (found.zero == 8).all()
    error = np.square(found.real() - w).sum()
    if form.negative:
        assert error < 0.95 * np.square(plain(w, 32) - w).sum()
    # no code next to one that was taken is nearer
    step = np.repeat(found.scale, 32, axis=1)[:, :100]
    inside = (found.codes > 0) & (found.codes < 15)
    assert (np.abs(found.real() - w)[inside] <= np.abs(step[inside]) * (0.5 + 1e-5)).all()


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_second_order_loses_less_of_the_output(form):
    w, h = weights(), hessian(100)

    def loss(found):
        e = w - found.real()
        return np.einsum("of,fg,og->", e, h[0], e)

    assert loss(blockwise.compensated(w[None], h, form)) < 0.6 * loss(blockwise.nearest(w, form))


def test_independent_inputs_make_second_order_the_nearest_codes():
    w = weights(inputs=70)
    for form in FORMS:
        a, b = blockwise.compensated(w[None], np.eye(70)[None], form), blockwise.nearest(w, form)
        np.testing.assert_array_equal(a.codes, b.codes)
        np.testing.assert_array_equal(a.scale, b.scale)
        np.testing.assert_array_equal(a.zero, b.zero)


def test_groups_and_outputs_in_pieces_change_nothing(monkeypatch):
    w, h = weights(12).reshape(3, 4, 100), hessian(100, groups=3)
    whole = blockwise.compensated(w, h, FORMS[2])
    each = [blockwise.compensated(w[i : i + 1], h[i : i + 1], FORMS[2]).codes for i in range(3)]
    np.testing.assert_array_equal(whole.codes, np.concatenate(each))
    nearest = blockwise.nearest(w.reshape(12, 100), FORMS[2])
    monkeypatch.setattr(blockwise, "_ENTRIES", 1)
    np.testing.assert_array_equal(whole.codes, blockwise.compensated(w, h, FORMS[2]).codes)
    np.testing.assert_array_equal(nearest.codes, blockwise.nearest(w.reshape(12, 100), FORMS[2]).codes)


@pytest.mark.parametrize("form", [*FORMS, Form(8, 32, symmetric=True, negative=True, half=True)], ids=str)
def test_zeros_constants_and_a_block_that_is_not_full_are_exact(form):
    w = np.zeros((3, 40))
    w[1], w[2] = 0.75, -0.75
    for found in (blockwise.nearest(w, form), blockwise.compensated(w[None], np.eye(40)[None], form)):
        np.testing.assert_allclose(found.real(), w, rtol=1e-3)
        assert np.isfinite(found.scale).all()
        assert not found.real()[0].any()
        padded = found.padded()
        assert padded.shape == (3, 2, 32)
        assert (padded[:, 1, 8:] == found.zero[:, 1:]).all()  # stands for 0
