"""Whole TFLite models in fixed point: the shared integer ones, and those that our own recipes make."""

from __future__ import annotations

import numpy as np
import pytest

from edgelathe.compress.tflite import steps
from edgelathe.compress.types import Context
from edgelathe.core import dataset
from edgelathe.model import io
from edgelathe.model.fixed import simulate, tflite
from edgelathe.model.fixed.types import Arithmetic
from support.tiny_tflite import DEFAULT, REFERENCE, answers


@pytest.fixture(scope="module")
def float_model(data_dir):
    return io.load(data_dir / "cifar10_resnet8" / "model.tflite")


@pytest.fixture(scope="module")
def samples(data_dir, float_model):
    whole = dataset.load(data_dir / "cifar10_resnet8" / "eval.npz")
    return dataset.bind(dataset.take(whole, range(24)), float_model.signature)


@pytest.fixture(scope="module")
def calibration(data_dir, float_model):
    whole = dataset.load(data_dir / "cifar10_resnet8" / "calib.npz")
    return dataset.bind(dataset.take(whole, range(16)), float_model.signature)


def simulated(model, inputs, arithmetic=None, reference=None):
    return simulate.simulate(tflite.program(model, arithmetic or Arithmetic(), reference=reference), inputs)


@pytest.mark.parametrize(("kernels", "options"), [("reference", REFERENCE), ("optimized", DEFAULT)])
def test_the_integer_resnet8_to_the_last_bit(data_dir, kernels, options):
    model = io.load(data_dir / "cifar10_resnet8" / "model_int8_reference.tflite")
    images = np.load(data_dir / "cifar10_resnet8" / "eval.npz")["x"][:64]
    inputs = {model.signature.inputs[0].name: (images.astype(np.int16) - 128).astype(np.int8)}
    got = simulated(model, inputs, Arithmetic(kernels=kernels))
    np.testing.assert_array_equal(got.simulated, answers(model, inputs, options)[0])


@pytest.mark.slow
def test_the_integer_mobilenet_v2_to_the_last_bit(data_dir):
    model = io.load(data_dir / "imagenet_mobilenetv2" / "model_int8_reference.tflite")
    inputs = {model.signature.inputs[0].name: np.load(data_dir / "imagenet_mobilenetv2" / "eval.npz")["x"][:3]}
    np.testing.assert_array_equal(simulated(model, inputs).simulated, answers(model, inputs)[0])


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (steps.int8, steps.Int8Options()),
        (steps.int8, steps.Int8Options(weights=4)),
        (steps.int16x8, steps.ScaleOptions()),
    ],
    ids=["int8", "int8, 4-bit weights", "int16x8"],
)
def test_models_of_our_recipes_to_the_last_bit(float_model, samples, calibration, step, options):
    model = step(float_model, options, Context(data=calibration)).model
    got = simulated(model, samples.inputs, reference=float_model)
    np.testing.assert_array_equal(got.simulated, answers(model, samples.inputs)[0])
    np.testing.assert_allclose(got.exact, answers(float_model, samples.inputs, DEFAULT)[0], atol=1e-5)
    assert all(layer.mse is not None for layer in got.layers), "each layer has a counterpart in the float model"


@pytest.mark.parametrize(
    ("step", "options", "bound"),
    [(steps.int8_dynamic, steps.ScaleOptions(), 1e-6), (steps.int4, steps.Int4Options(), 1e-5)],
    ids=["int8-dynamic", "int4"],
)
def test_float_activations_with_integer_weights(float_model, samples, calibration, step, options, bound):
    model = step(float_model, options, Context(data=calibration)).model
    got = simulated(model, samples.inputs)
    np.testing.assert_allclose(got.simulated, answers(model, samples.inputs)[0], atol=bound)


def test_the_layer_errors_do_not_depend_on_how_samples_are_cut(data_dir, monkeypatch):
    model = io.load(data_dir / "cifar10_resnet8" / "model_int8_reference.tflite")
    images = np.load(data_dir / "cifar10_resnet8" / "eval.npz")["x"][:7]
    inputs = {model.signature.inputs[0].name: (images.astype(np.int16) - 128).astype(np.int8)}
    whole = simulated(model, inputs)
    monkeypatch.setattr(simulate, "_CHUNK", 3 * images[0].size)
    parts = simulated(model, inputs)
    np.testing.assert_array_equal(whole.simulated, parts.simulated)
    for a, b in zip(whole.layers, parts.layers, strict=True):
        assert (a.name, a.overflows) == (b.name, b.overflows)
        assert a.clipped == pytest.approx(b.clipped)
        assert a.sqnr_db == pytest.approx(b.sqnr_db, abs=1e-3)


def test_narrow_accumulators_overflow_and_are_counted(data_dir):
    """Sums of 16-bit activations pass 32 bits only where weights are large: make them so."""
    from support.tiny_tflite import Net, T

    x, y = T("x", (1, 600), "int16", 0.001, 0), T("y", (1, 1), "int16", 4.0, 0)
    w = T("w", (), "int8", 0.01, 0, np.full((1, 600), 127))
    net = Net()
    net.op("FULLY_CONNECTED", [x, w, None], [y], table="FullyConnectedOptions", quantizedBiasType=4)
    model, inputs = net.build([x], [y]), {"x": np.full((2, 600), 32767, np.int16)}
    exact = simulated(model, inputs).simulated
    assert int(exact[0, 0]) == round(600 * 127 * 32767 * 0.001 * 0.01 / 4)
    held = {o: simulated(model, inputs, Arithmetic(wide=32, overflow=o)) for o in ("wrap", "saturate")}
    assert [r.layers[0].overflows for r in held.values()] == [2, 2]
    wrapped = (600 * 127 * 32767 + 2**31) % 2**32 - 2**31
    assert int(held["wrap"].simulated[0, 0]) == round(wrapped * 0.00001 / 4)
    assert int(held["saturate"].simulated[0, 0]) == round((2**31 - 1) * 0.00001 / 4)
