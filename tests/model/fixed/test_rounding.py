"""Requantization against whole-number arithmetic of Python, without the shortcuts of arrays."""

import numpy as np
import pytest

from edgelathe.model.fixed import rounding

EDGES = [0, 1, -1, 2, -2, 3, -3, 2**30, -(2**30), 2**31 - 1, -(2**31), -(2**31) + 1]


def truncated(a, b):
    """Division of C: towards zero."""
    return abs(a) // b * (1 if a >= 0 else -1)


def high_mul(a, b):
    if a == b == -(2**31):
        return 2**31 - 1
    nudge = 2**30 if a * b >= 0 else 1 - 2**30
    return truncated(a * b + nudge, 2**31)


def divide(x, exponent):
    mask = (1 << exponent) - 1
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return (x >> exponent) + (1 if x & mask > threshold else 0)


def numbers(count, seed=0):
    drawn = np.random.default_rng(seed).integers(-(2**31), 2**31, count)
    return np.array([*EDGES, *drawn, *(drawn >> 12), *(drawn >> 24)], np.int64)


def test_high_multiplication_rounds_as_the_definition_does():
    a = numbers(400)
    b = numbers(400, 1)
    got = rounding.high_mul(a[:, None], b[None])
    assert got.tolist() == [[high_mul(int(x), int(y)) for y in b] for x in a]


@pytest.mark.parametrize("exponent", [0, 1, 2, 7, 30, 31])
def test_division_by_a_power_takes_halves_away_from_zero(exponent):
    x = np.concatenate([numbers(500), np.arange(-300, 301)])
    assert rounding.divide_by_power(x, exponent).tolist() == [divide(int(v), exponent) for v in x]


def test_a_multiplier_stands_for_its_factor_to_31_bits():
    factors = np.array([1.0, 0.5, 0.75, 1e-3, 3.1e-7, 1 - 2**-40, 5.25, 2.0**20])
    fixed, shift = rounding.multiplier(factors)
    assert ((fixed >= 2**30) & (fixed < 2**31)).all()
    assert np.allclose(fixed * 2.0 ** (shift - 31), factors, rtol=2.0**-31, atol=0)
    assert rounding.multiplier(0.0) == (0, 0)
    assert rounding.multiplier(2.0**-40) == (0, 0)


def test_rounding_twice_and_once_differ_where_they_should():
    fixed, shift = rounding.multiplier(0.3333333)
    x = np.arange(-2000, 2000, dtype=np.int64)
    single = rounding.multiply(x, fixed, shift, "single")
    assert single.tolist() == [(int(v) * int(fixed) + (1 << (30 - int(shift)))) >> (31 - int(shift)) for v in x]
    double = rounding.multiply(x, fixed, shift)
    want = [divide(high_mul(int(v), int(fixed)), -int(shift)) for v in x]
    assert double.tolist() == want
    assert (single != double).any()


def test_wide_sums_take_a_multiplier_of_15_bits():
    fixed, shift = rounding.multiplier([0.7, 0.0001, 1.9])
    x = np.array([[2**46], [-(2**46) + 7], [12345678901], [-3]], np.int64)
    want = [
        [
            (v * ((f + 2**15) >> 16) + (1 << (14 - s))) >> (15 - s)
            for f, s in zip(map(int, fixed), map(int, shift), strict=True)
        ]
        for v in map(int, x[:, 0])
    ]
    assert rounding.multiply_wide(x, fixed, shift).tolist() == want


def test_sums_that_do_not_fit_are_counted_and_wrapped_or_saturated():
    x = np.array([2**31 - 1, 2**31, -(2**31) - 1, 5], np.int64)
    assert [a.tolist() if hasattr(a, "tolist") else a for a in rounding.accumulate(x, 32, "wrap")] == [
        [2**31 - 1, -(2**31), 2**31 - 1, 5],
        2,
    ]
    held, count = rounding.accumulate(x, 32, "saturate")
    assert (held.tolist(), count) == ([2**31 - 1, 2**31 - 1, -(2**31), 5], 2)
    assert rounding.accumulate(x, 64, "wrap")[1] == 0


@pytest.mark.parametrize("width", [1, 3, 6])
def test_the_narrow_way_gives_the_same_integers(width):
    fixed, shift = rounding.multiplier([0.4999, 0.0123, 1e-6][: min(width, 3)])
    x = numbers(500)[: 500 // width * width].reshape(-1, width).astype(np.int32)
    narrow = rounding.Narrow.of(fixed, shift, width)
    assert narrow is not None
    want = rounding.multiply(x.astype(np.int64), np.resize(fixed, width), np.resize(shift, width))
    np.testing.assert_array_equal(narrow(x), want)


def test_factors_of_a_half_and_more_have_no_narrow_way():
    assert rounding.Narrow.of(*rounding.multiplier([0.1, 0.5]), 2) is None


def test_sums_of_48_bits_are_multiplied_exactly():
    fixed, shift = rounding.multiplier(0.37)
    x = np.array([2**46 + 12345, -(2**46) - 7, 2**33 + 1, 5], np.int64)
    want = [divide(truncated_high(int(v), int(fixed)), -int(shift)) for v in x]
    assert rounding.multiply(x, fixed, shift).tolist() == want


def truncated_high(a, b):
    return (a * b + 2**30) >> 31
