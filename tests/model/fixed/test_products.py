"""Sums of products against whole-number loops, at the bounds of each floating-point type."""

import numpy as np
import pytest

from edgelathe.model.fixed import products
from edgelathe.model.fixed.products import Filter, Window


def looped(x, w, window, groups):
    """Convolution by its definition, in Python's integers."""
    (top, bottom), (left, right) = window.pads
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    oh, ow = Window(window.size, window.strides, window.dilations).output(x.shape[1:3])
    out, kh, kw, depth = w.shape
    y = np.zeros((len(x), oh, ow, out), object)
    for n, i, j, o in np.ndindex(y.shape):
        first = o // (out // groups) * depth
        for a, b, c in np.ndindex(kh, kw, depth):
            at = x[n, i * window.strides[0] + a * window.dilations[0], j * window.strides[1] + b * window.dilations[1]]
            y[n, i, j, o] += int(at[first + c]) * int(w[o, a, b, c])
    return y


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize(
    ("window", "groups", "out"),
    [
        (Window((1, 1)), 1, 5),
        (Window((1, 1), strides=(2, 1)), 1, 3),
        (Window((3, 3), (2, 2), (1, 1), ((0, 1), (0, 1))), 1, 4),
        (Window((3, 2), (1, 2), (2, 1), ((2, 2), (1, 0))), 2, 4),
        (Window((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))), 4, 4),
        (Window((3, 3), (2, 2), (1, 1), ((0, 1), (1, 1))), 4, 8),
    ],
    ids=["point", "strided point", "padded", "two groups, dilated", "depthwise", "depthwise, two outputs each"],
)
def test_convolution_is_exact(window, groups, out, bits):
    drawn = np.random.default_rng(bits)
    half = 2 ** (bits - 1)
    x = drawn.integers(-2 * half, 2 * half, (2, 6, 7, 4))
    w = drawn.integers(-half, half, (out, *window.size, 4 // groups))
    filter_ = Filter.exact(w, window, groups, bound=2 * half)
    assert filter_(x.astype(filter_.dtype)).astype(object).tolist() == looped(x, w, window, groups).tolist()


@pytest.mark.parametrize(("largest", "dtype"), [(2**10, np.float32), (2**20, np.float64), (2**45, np.int64)])
def test_the_type_of_a_product_holds_its_largest_sum(largest, dtype):
    a, b = np.full((1, 1024), largest, np.int64), np.full((1024, 1), 15, np.int64)
    a[0, 0] += 1  # an odd sum at the very bound would be lost in a type too small
    b[1] = 16
    got = products.matmul(a, b)
    assert got.dtype == dtype
    assert int(got[0, 0]) == sum(int(x) * int(y) for x, y in zip(a[0], b[:, 0], strict=True))


def test_a_sum_that_no_type_holds_is_refused():
    with pytest.raises(OverflowError, match="sums of products"):
        products.matmul(np.full((1, 8), 2**40), np.full((8, 1), 2**40))
