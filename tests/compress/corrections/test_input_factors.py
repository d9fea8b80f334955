import numpy as np
import onnx_ir as ir
import pytest

from edgelathe.compress.corrections.input_factors import input_factors


def layer(w, bias, op="Conv", **attributes):
    values = [ir.Value(name=n, const_value=ir.tensor(v.astype(np.float32))) for n, v in (("w", w), ("b", bias))]
    return ir.node(op, [ir.Value(name="x"), *values], attributes)


@pytest.mark.parametrize("group", [1, 2])
def test_factors_of_inputs_are_told_from_those_of_outputs(group):
    rng = np.random.default_rng(0)
    w, bias = rng.normal(size=(6, 4, 3, 3)), rng.normal(size=6)
    w[:, 1] = 0  # an input that is not read at all
    w[np.argmax(np.abs(bias)), 2] = 0  # and one that some outputs do not read
    x, y = rng.uniform(0.3, 3, 4 * group), rng.uniform(0.3, 3, 6)
    own = np.repeat(x.reshape(group, 4), 6 // group, axis=0)
    other = layer(w * own[:, :, None, None] * y[:, None, None, None], bias * y, group=group)
    found = input_factors(layer(w, bias, group=group), other)
    read = np.tile(np.arange(4) != 1, group)
    assert found[read] == pytest.approx(x[read], rel=1e-5)
    assert (found[~read] == 1).all()


def test_what_is_no_product_of_factors_is_not_told():
    rng = np.random.default_rng(1)
    w, bias = rng.normal(size=(5, 3)), rng.normal(size=3)
    assert input_factors(layer(w, bias, "Gemm"), layer(w + rng.normal(size=w.shape), bias, "Gemm")) is None
    assert input_factors(layer(w, bias, "Gemm"), layer(2 * w, 3 * bias, "Gemm")) == pytest.approx(2 / 3)
    assert input_factors(layer(w, 0 * bias, "Gemm"), layer(2 * w, 0 * bias, "Gemm")) is None
    assert input_factors(layer(w, 0 * bias, "Gemm"), layer(w, bias, "Gemm")) == pytest.approx(1)
