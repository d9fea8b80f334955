import numpy as np
import pytest

from edgelathe.compress.graph.moves import constant
from edgelathe.compress.half import bf16, fp16, narrow
from edgelathe.compress.half.narrow import BFLOAT16, FLOAT16
from edgelathe.compress.types import Context
from support.tiny_onnx import Graph


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


@pytest.mark.parametrize("kind", [FLOAT16, BFLOAT16])
def test_what_is_said_of_numbers_hangs_on_no_block(kind, monkeypatch):
    x = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32) * np.float32(3e-5)
    x[0, :3] = np.inf, 1, 0
    x[49, 19] = 7e4
    whole = [kind.unfit(x), kind.unfit(x[:, :19]), kind.small(x)]
    monkeypatch.setattr(narrow, "_BLOCK", 7)
    assert [kind.unfit(x), kind.unfit(x[:, :19]), kind.small(x)] == whole


@pytest.mark.parametrize("step", [fp16, bf16])
def test_large_constants_are_narrowed_as_they_are_written_to_equal_bytes(step, monkeypatch):
    g = Graph()
    model = g.build(g.op("MatMul", g.op("MatMul", "x", g.weights(64, 64)), g.weights(64, 64)), shape=("n", 64))
    made = step.apply(model, step.Options(), Context())
    monkeypatch.setattr(narrow, "_LATER", 0)
    held = []
    monkeypatch.setattr(narrow, "constant", lambda *a: held.append(a[1]) or constant(*a))
    again = step.apply(model, step.Options(), Context())
    assert not any(isinstance(h, np.ndarray) for h in held)
    assert len(held) == 2
    assert again == made
