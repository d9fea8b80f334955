import numpy as np
import pytest

from edgelathe.compress.half.narrow import BFLOAT16, FLOAT16


def f(*numbers):
    return np.array(numbers, np.float32)


def test_the_types_say_what_they_hold():
    assert FLOAT16.unfit(f(65504, 1)) == ""
    assert FLOAT16.unfit(f(7e4, 1)) == "beyond float16's 65504"
    assert BFLOAT16.unfit(f(7e4, 3e38)) == ""
    assert BFLOAT16.unfit(np.array([np.finfo(np.float32).max])) == "beyond bfloat16's 3.38953e+38"
    assert np.isfinite(BFLOAT16.cast(f(BFLOAT16.largest)).astype(np.float32)).all()
    assert np.isinf(FLOAT16.cast(f(7e4))).all()


def test_masks_of_infinity_and_zeros_are_held():
    for kind in (FLOAT16, BFLOAT16):
        assert kind.unfit(f(0, -np.inf, 1)) == kind.unfit(f(0, 0)) == kind.unfit(f()) == ""
        assert np.isinf(kind.cast(f(-np.inf)).astype(np.float32)).all()


def test_numbers_that_vanish_are_not_held_and_a_few_are_told():
    tiny = np.full(100, 1e-8, np.float32)
    assert FLOAT16.unfit(tiny) == "too small for float16: 1e+02% would be lost"
    assert BFLOAT16.unfit(tiny) == ""
    some = np.concatenate([np.ones(90, np.float32), tiny[:4], np.full(6, 1e-5, np.float32)])
    assert FLOAT16.unfit(some) == ""
    assert FLOAT16.small(some) == ", 4% become 0, 6% are subnormal"
    assert BFLOAT16.small(some) == FLOAT16.small(np.ones(10, np.float32)) == ""


@pytest.mark.parametrize(("kind", "digits"), [(FLOAT16, 11), (BFLOAT16, 8)])
def test_rounding_is_to_nearest(kind, digits):
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert (np.abs(kind.cast(x).astype(np.float32) - x) <= np.abs(x) * 2.0**-digits).all()
