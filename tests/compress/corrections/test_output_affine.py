from dataclasses import replace

import numpy as np
import pytest

from edgelathe.compress.corrections import output_affine
from edgelathe.compress.graph import fold
from edgelathe.compress.integer import int8
from edgelathe.compress.types import Context
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from support.tiny_onnx import ARM, Graph, operators, optimized, outputs, samples, sqnr

OPTIONS = output_affine.Options()
SCALE, SHIFT = np.linspace(0.5, 1.5, 6).astype(np.float32), np.linspace(-1, 1, 6).astype(np.float32)


def classifier(scale=1.0, shift=0.0, closing=()):
    """6 classes of 8 numbers; its last layer is off by a factor and a summand per class."""
    g = Graph(3)
    w, b = g.rng.normal(size=(6, 8)), g.rng.normal(size=6)
    x = g.op("Relu", g.op("Gemm", "x", g.weights(8, 8), g.const(np.zeros(8, np.float32)), transB=1))
    y = g.op("Gemm", x, g.const((w.T * scale).astype(np.float32)), g.const((b * scale + shift).astype(np.float32)))
    for op in closing:
        y = g.op(op, y)
    return g.build(y, shape=("n", 8))


def told(reference, n=96, **more):
    return Context(data=replace(samples(reference, n), **more), reference=reference)


def images(last, scale=1.0, shift=0.0):
    """6 channels for each place of an image, from a convolution or from a product over its last axis."""
    g = Graph(4)
    w, b = g.rng.normal(size=(6, 3)), g.rng.normal(size=6)
    if last == "Conv":
        kernel = (w * np.reshape(scale, (-1, 1)))[:, :, None, None].astype(np.float32)
        return g.build(g.op("Conv", "x", g.const(kernel), g.const((b * scale + shift).astype(np.float32))))
    x = g.op("Transpose", "x", perm=[0, 2, 3, 1])
    y = g.op("MatMul", x, g.const((w.T * scale).astype(np.float32)))
    return g.build(g.op("Mul", g.op("Add", y, g.const((b * scale + shift).astype(np.float32))), g.const(np.float32(1))))


@pytest.mark.parametrize("closing", [(), ("Softmax",), ("Sigmoid",)])
def test_a_wrong_scale_and_bias_are_put_right_in_the_last_layer(closing):
    reference, wrong = classifier(closing=closing), classifier(SCALE, SHIFT, closing)
    result = output_affine.apply(wrong, OPTIONS, told(reference))
    unseen = samples(reference, 16, seed=9)
    assert outputs(result.model, unseen)[0] == pytest.approx(outputs(reference, unseen)[0], abs=1e-4)
    assert operators(result.model) == operators(wrong)
    (note,) = result.notes
    assert "6 of 6 channels, into Gemm_2: squared error 100.0% less on 24 samples held out" in note.what


@pytest.mark.parametrize(("last", "added"), [("Conv", []), ("MatMul", ["Mul", "Add"])])
def test_channels_of_images_are_mapped_where_they_are(last, added):
    reference, wrong = images(last), images(last, SCALE, SHIFT)
    result = output_affine.apply(wrong, OPTIONS, told(reference))
    unseen = samples(reference, 16, seed=9)
    assert outputs(result.model, unseen)[0] == pytest.approx(outputs(reference, unseen)[0], abs=1e-3)
    assert operators(result.model) == [*operators(wrong), *added]
    assert result.model.signature == wrong.signature


@pytest.mark.parametrize("per_channel", [True, False])
def test_an_integer_model_gains_and_keeps_its_kernels(per_channel):
    reference = classifier(closing=("Softmax",))
    options = int8.Options(weights=2, depthwise=2, rounding="nearest", correct=False, per_channel=per_channel)
    options = int8.resolve(options, Hardware("aarch64", frozenset({"sdot"})))
    context = told(reference, 256)
    small = int8.apply(fold.apply(reference, fold.Options(), Context()).model, options, context).model
    result = output_affine.apply(small, OPTIONS, context)
    unseen = samples(reference, 64, seed=9)
    want = outputs(reference, unseen)[0]
    assert sqnr(want, outputs(result.model, unseen)[0]) > sqnr(want, outputs(small, unseen)[0]) + 0.5
    assert optimized(result.model, ARM) == optimized(small, ARM)


def test_an_integer_answer_is_mapped_behind_its_grid():
    reference = images("Conv")
    options = int8.resolve(int8.Options(), Hardware("aarch64", frozenset({"sdot"})))
    small = int8.apply(images("Conv", SCALE, SHIFT), options, told(images("Conv", SCALE, SHIFT))).model
    result = output_affine.apply(small, OPTIONS, told(reference))
    unseen = samples(reference, 16, seed=9)
    assert sqnr(outputs(reference, unseen)[0], outputs(result.model, unseen)[0]) > 25
    assert operators(result.model)[-2:] == ["Mul", "Add"]


def test_a_model_that_answers_as_the_float_one_stays_as_it_is():
    model = classifier()
    result = output_affine.apply(model, OPTIONS, told(model))
    assert result.model is model
    assert result.notes[0].what == "left as it was: no map lowers its error"


def test_labels_put_a_biased_classifier_right():
    truth, biased = classifier(), classifier(1.0, np.array([6, 0, 0, 0, 0, -6], np.float32), ("Softmax",))
    data = samples(truth, 400)
    labels = outputs(truth, data)[0].argmax(axis=1)
    context = Context(data=replace(data, labels=labels), reference=biased)
    result = output_affine.apply(biased, output_affine.Options("labels"), context)
    unseen = samples(truth, 100, seed=9)
    want = outputs(truth, unseen)[0].argmax(axis=1)
    right = [(outputs(m, unseen)[0].argmax(axis=1) == want).mean() for m in (biased, result.model)]
    assert right[1] > right[0] + 0.2
    assert "right" in result.notes[0].what


def test_targets_are_labels_too():
    truth, wrong = classifier(), classifier(SCALE, SHIFT)
    data = samples(truth, 96)
    context = Context(
        data=replace(data, labels=outputs(truth, data)[0].astype(np.float64), metric="mae"), reference=wrong
    )
    result = output_affine.apply(wrong, output_affine.Options("labels"), context)
    unseen = samples(truth, 16, seed=9)
    assert outputs(result.model, unseen)[0] == pytest.approx(outputs(truth, unseen)[0], abs=1e-4)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (None, "calib: output-affine: against: the calibration data have no labels"),
        (np.arange(96) % 7, "label 6 of 6 classes"),
    ],
)
def test_labels_that_do_not_serve_are_refused_in_one_line(labels, says):
    model = classifier()
    with pytest.raises(UserError, match=says):
        output_affine.apply(model, output_affine.Options("labels"), told(model, labels=labels))


def test_few_labels_leave_the_model_as_it_is():
    model = classifier()
    result = output_affine.apply(model, output_affine.Options("labels"), told(model, 16, labels=np.arange(16) % 6))
    assert result.model is model
    assert "16 labelled samples are too few for 6 classes" in result.notes[0].what


def test_an_output_in_other_shapes_is_left():
    g = Graph()
    other = g.build(g.op("Gemm", "x", g.weights(8, 5)), shape=("n", 8))
    result = output_affine.apply(other, OPTIONS, Context(data=samples(other, 16), reference=classifier()))
    assert result.model is other


def test_data_and_reference_are_asked_for():
    model = classifier()
    with pytest.raises(UserError, match="needs calibration data"):
        output_affine.apply(model, OPTIONS, Context(reference=model))
    with pytest.raises(UserError, match="no step before it has changed the model"):
        output_affine.apply(model, OPTIONS, Context(data=Dataset("calib", {"x": np.zeros((9, 8), np.float32)})))
