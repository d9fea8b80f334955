"""Grids of any bit widths for TFLite models."""

from __future__ import annotations

import numpy as np
import pytest

from edgelathe.core import dataset
from edgelathe.core.errors import UserError
from edgelathe.model import io
from edgelathe.model.fixed import prepare, simulate, tflite_assign
from edgelathe.model.fixed.types import Arithmetic, Bits
from support.tiny_tflite import DEFAULT, Net, T, answers


@pytest.fixture(scope="module")
def float_model(data_dir):
    return io.load(data_dir / "cifar10_resnet8" / "model.tflite")


def images(data_dir, model, name, count):
    whole = dataset.load(data_dir / "cifar10_resnet8" / f"{name}.npz")
    return dataset.bind(dataset.take(whole, range(count)), model.signature)


def simulated(model, bits, samples, ranges=None, **target):
    program = prepare.prepare(model, prepare.Wanted(bits, Arithmetic(**target)), ranges)
    return simulate.simulate(program, samples)


@pytest.mark.parametrize("bits", [2, 4, 8, 12, 16])
def test_an_activation_grid_spans_its_range_and_holds_zero(bits):
    for low, high in ((-1.0, 3.0), (0.0, 5.0), (0.7, 2.0), (-4.0, -1.0)):
        grid = tflite_assign.spanning(low, high, bits)
        assert grid.dequantize(np.array([grid.zero_point]))[0] == 0
        ends = grid.dequantize(np.array([grid.low, grid.high]))
        assert ends[0] <= min(low, 0) + grid.scale / 1.9
        assert ends[1] >= max(high, 0) - grid.scale / 1.9
        assert bits <= 8 or grid.zero_point == 0


def test_an_empty_range_gets_a_grid_too():
    assert tflite_assign.spanning(0.0, 0.0, 8).scale == 1.0
    w = np.zeros((3, 2, 2, 1), np.float32)
    w[1] = 5
    grid = tflite_assign.symmetric(w, 0, 4)
    assert grid.scales.tolist() == pytest.approx([1.0, 5 / 7, 1.0])


def test_more_bits_have_less_error(float_model, data_dir):
    some = images(data_dir, float_model, "eval", 12).inputs
    noise = [simulated(float_model, Bits(b, b), some, some) for b in (4, 6, 8, 10, 12, 16)]
    sqnr = [s.layers[-2].sqnr_db for s in noise]  # of the logits: shares of images that are easy say little
    assert sqnr == sorted(sqnr)
    assert sqnr[0] < 12
    assert sqnr[-1] > 65
    want = answers(float_model, some, DEFAULT)[0]
    np.testing.assert_allclose(noise[-1].exact, want, atol=1e-5)
    np.testing.assert_allclose(noise[-1].real, want, atol=0.01)


def test_only_weights_or_only_activations(float_model, data_dir):
    calib, some = (images(data_dir, float_model, name, 4).inputs for name in ("calib", "eval"))
    weights = simulated(float_model, Bits(weights=3), some)
    assert {layer.bits for layer in weights.layers} == {None}
    activations = simulated(float_model, Bits(activations=8), some, calib)
    assert {layer.bits for layer in activations.layers} == {8}
    assert activations.layers[0].sqnr_db > 35
    assert weights.layers[0].sqnr_db < 25


def test_an_integer_model_takes_other_widths_from_its_own_ranges(data_dir):
    model = io.load(data_dir / "cifar10_resnet8" / "model_int8_reference.tflite")
    some = images(data_dir, model, "eval", 6).inputs
    own, wide, narrow = (simulated(model, b, some) for b in (Bits(), Bits(16, 16), Bits(4, 8)))
    assert {layer.bits for layer in wide.layers} == {16, 8}  # the output keeps the file's
    assert wide.layers[3].sqnr_db > own.layers[3].sqnr_db + 20
    assert narrow.layers[3].sqnr_db < own.layers[3].sqnr_db - 3
    np.testing.assert_array_equal(own.exact, wide.exact)


def test_operators_without_integer_kernel_compute_in_float_between_grids():
    x, y, z = (T(n, (1, 64), "float32") for n in "xyz")
    net = Net()
    net.op("EXP", [x], [y])
    net.op("DIV", [y, T("c", (), "float32", values=np.full(64, 3.0))], [z], table="DivOptions")
    model = net.build([x], [z])
    values = {"x": np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)}
    got = simulated(model, Bits(8, 8), values, values)
    np.testing.assert_allclose(got.exact, np.exp(values["x"]) / 3, rtol=1e-5)
    step = float(got.exact.max()) / 255
    assert 0 < np.abs(got.real - got.exact).max() < 8 * step
    assert {layer.bits for layer in got.layers} == {8}


def test_ranges_want_samples_that_are_finite():
    x, y = T("x", (1, 4), "float32"), T("y", (1, 4), "float32")
    net = Net()
    net.op("EXP", [x], [y])
    model = net.build([x], [y], "boom")
    with pytest.raises(UserError, match="want samples"):
        simulated(model, Bits(8, 8), {})
    hot = {"x": np.full((2, 4), 200, np.float32)}
    with pytest.raises(UserError, match="boom: y: is not finite"):
        simulated(model, Bits(8, 8), hot, hot)


@pytest.mark.parametrize("bits", [Bits(1, 8), Bits(8, 17)])
def test_widths_that_cannot_be_simulated(bits, float_model):
    with pytest.raises(UserError, match="cannot be simulated; give 2 to 16"):
        simulated(float_model, bits, {}, {})
