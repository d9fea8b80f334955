"""Models and samples that int8 for TFLite has to survive, or to refuse in one line."""

from __future__ import annotations

import numpy as np
import pytest

from edgelathe.compress.tflite import steps as tflite
from edgelathe.compress.types import Context
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.model import tflite as reader
from support.tiny_tflite import DEFAULT, REFERENCE, Net, T, answers

RNG = np.random.default_rng(0)
SHAPE = (1, 6, 6, 2)


def network(weights=None, bias=None, dense=None, between=None):
    """conv, an operator between, mean, dense."""
    weights = RNG.normal(size=(4, 3, 3, 2)) if weights is None else weights
    bias = np.linspace(-0.5, 0.5, 4) if bias is None else bias
    dense = RNG.normal(size=(3, 4)) if dense is None else dense
    x, a = T("x", SHAPE, "float32"), T("a", (1, 6, 6, 4), "float32")
    net = Net()
    net.op(
        "CONV_2D", [x, T("w", dtype="float32", values=weights), T("wb", dtype="float32", values=bias)], [a],
        table="Conv2DOptions", padding=0, strideH=1, strideW=1, fusedActivationFunction=1,
    )  # fmt: skip
    if between:
        b = T("b", a.shape, "float32")
        net.op(between, [a], [b])
        a = b
    c, y = T("c", (1, 4), "float32"), T("y", (1, 3), "float32")
    net.op("MEAN", [a, T("axes", dtype="int32", values=[1, 2])], [c], table="ReducerOptions", keepDims=False)
    net.op(
        "FULLY_CONNECTED", [c, T("f", dtype="float32", values=dense), T("fb", dtype="float32", values=np.ones(3))], [y],
        table="FullyConnectedOptions",
    )  # fmt: skip
    return net.build([x], [y])


def samples(count=16, value=None):
    x = RNG.normal(size=(count, *SHAPE[1:])).astype(np.float32)
    return Dataset("calib", {"x": x if value is None else np.full_like(x, value)})


def zeros_in(channel):
    weights = RNG.normal(size=(4, 3, 3, 2))
    weights[channel] = 0
    return weights


CASES = {
    "a channel of zero weights, whose bias is all there is": (network(zeros_in(1), [0.5, 20, 0.5, 0.5]), samples()),
    "a channel that is never positive": (network(bias=[0.1, -1e3, 0.1, 0.1]), samples()),
    "no weight but zero": (network(np.zeros((4, 3, 3, 2))), samples()),
    "no value but zero": (network(np.zeros((4, 3, 3, 2)), np.zeros(4)), samples()),
    "weights far smaller than their bias": (network(RNG.normal(size=(4, 3, 3, 2)) * 1e-9), samples()),
    "one sample": (network(), samples(1)),
    "equal samples": (network(), samples(4, value=0.25)),
    "samples of zeros": (network(), samples(4, value=0.0)),
}


@pytest.mark.parametrize("weights", [8, 4])
@pytest.mark.parametrize("kernels", [DEFAULT, REFERENCE], ids=["default", "reference"])
@pytest.mark.parametrize("name", CASES)
def test_answers_stay_near_the_float_ones(name, kernels, weights):
    model, data = CASES[name]
    made = tflite.int8(model, tflite.Int8Options(weights=weights), Context(data=data)).model
    want, have = (answers(m, dict(data.inputs), kernels)[0] for m in (model, made))
    assert np.isfinite(have).all()
    largest = max(float(np.abs(want).max()), 1e-3)
    assert np.abs(have - want).max() <= (0.04 if weights == 8 else 0.25) * largest


def test_an_operator_without_integer_kernel_stays_float_and_is_named():
    model, data = network(between="ELU"), samples()
    applied = tflite.int8(model, tflite.Int8Options(), Context(data=data))
    assert [(n.layer, n.done) for n in applied.notes if not n.done] == [("b", False)]
    want, have = (answers(m, dict(data.inputs), DEFAULT)[0] for m in (model, applied.model))
    assert np.abs(have - want).max() <= 0.04 * np.abs(want).max()


def test_weights_that_are_not_finite_are_refused():
    weights = RNG.normal(size=(4, 3, 3, 2))
    weights[0, 0, 0, 0] = np.nan
    with pytest.raises(UserError, match="weights 'w' are not finite"):
        tflite.int8(network(weights), tflite.Int8Options(), Context(data=samples()))


@pytest.mark.parametrize("data", [None, samples(0)], ids=["none", "empty"])
def test_no_samples_are_refused(data):
    with pytest.raises(UserError, match="need calibration data"):
        tflite.int8(network(), tflite.Int8Options(), Context(data=data))


def test_a_fixed_batch_is_filled_up():
    x, y, net = T("x", (4, 3), "float32"), T("y", (4, 2), "float32"), Net()
    w = T("w", dtype="float32", values=RNG.normal(size=(2, 3)))
    net.op("FULLY_CONNECTED", [x, w, T("b", dtype="float32", values=np.ones(2))], [y], table="FullyConnectedOptions")
    model = net.build([x], [y])
    data = Dataset("calib", {"x": RNG.normal(size=(3, 3)).astype(np.float32)})
    made = tflite.int8(model, tflite.Int8Options(), Context(data=data)).model
    assert any(t.dtype == "int8" for t in reader.parse(made.data).main.tensors)
    want, have = (answers(m, dict(data.inputs), DEFAULT)[0] for m in (model, made))
    assert np.abs(have - want).max() <= 0.03 * np.abs(want).max()
