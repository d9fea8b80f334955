"""Why a TFLite file answers differently: the layer that was made worse on purpose is named, with the mend."""

import numpy as np
import pytest

from edgelathe.compress.sensitivity.errors import Error
from edgelathe.compress.tflite import steps
from edgelathe.compress.tflite.explain import explain
from edgelathe.compress.tflite.file import File
from edgelathe.compress.tflite.layers import layers
from edgelathe.compress.types import Context
from edgelathe.core.dataset import Dataset
from edgelathe.model import io
from edgelathe.model import tflite as reader
from edgelathe.model.run import outputs
from support.tiny_tflite import Net, T, answers

NAMES = ("first", "second", "third")


def network():
    """Two convolutions and a fully connected layer."""
    rng, net = np.random.default_rng(0), Net()
    x = T("x", (1, 6, 6, 3), "float32")
    made = [T("first", (1, 6, 6, 8), "float32"), T("second", (1, 6, 6, 4), "float32")]
    kernels = [rng.normal(size=(8, 3, 3, 3)), rng.normal(size=(4, 3, 3, 8))]
    for source, y, w in zip((x, made[0]), made, kernels, strict=True):
        parts = [T(f"{y.name}/w", dtype="float32", values=w), T(f"{y.name}/b", dtype="float32", values=np.ones(len(w)))]
        net.op("CONV_2D", [source, *parts], [y], table="Conv2DOptions", strideW=1, strideH=1, fusedActivationFunction=1)
    axes, pooled = T("axes", dtype="int32", values=[1, 2]), T("pooled", (1, 4), "float32")
    net.op("MEAN", [made[1], axes], [pooled], table="ReducerOptions")
    last = [T("w3", dtype="float32", values=rng.normal(size=(5, 4))), T("b3", dtype="float32", values=np.zeros(5))]
    (y,) = net.op("FULLY_CONNECTED", [pooled, *last], [T("third", (1, 5), "float32")], table="FullyConnectedOptions")
    return net.build([x], [y])


def labelled(model, n=24):
    x = {"x": np.random.default_rng(1).normal(size=(n, 6, 6, 3)).astype(np.float32)}
    return Dataset("tiny", x, outputs(model, x)[0].argmax(1))


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def data(model):
    return labelled(model)


@pytest.fixture(scope="module")
def integer(model, data):
    return steps.int8(model, steps.Int8Options(equalize="never", scale="minmax"), Context(data=data)).model


def worse(model, name):
    """The file with every third weight of one layer turned around."""
    file = File(model.data)
    la = next(la for la in layers(reader.parse(model.data).main) if la.name.removesuffix("_q") == name)
    stored = file.constant(la.weight).copy()
    stored.reshape(-1)[::3] *= -1
    file.set_constant(la.weight, stored)
    return io.from_bytes(file.data(), "tflite", "worse")


def layer(found, name):
    return next(la for la in found.layers if la.layer == name)


def test_nothing_changed_is_exact(model, data):
    found = explain(model, model, data)
    assert {la.layer: la.sqnr_db for la in found.layers} == dict.fromkeys(NAMES, 200)
    assert found.changed == 0
    assert found.tries == ()


def test_every_layer_of_a_sound_file_is_close_at_its_original_name(model, data, integer):
    found = explain(model, integer, data)
    assert {la.layer for la in found.layers} == set(NAMES)
    assert all(25 < la.sqnr_db < 60 for la in found.layers)
    want, have = (answers(m, data.inputs)[0] for m in (model, integer))
    assert layer(found, "third").sqnr_db == pytest.approx(Error.of(want, have).db, abs=0.01)  # the last: the output


@pytest.mark.parametrize("name", NAMES)
def test_the_layer_that_was_made_worse_is_where_the_error_begins(name, model, data, integer):
    found = explain(model, worse(integer, name), data)
    assert max(found.layers, key=lambda la: la.fall_db).layer == name
    assert next(t for t in found.tries if t.startswith("skip")) == f"skip = true for layer '{name}'"
    sound = NAMES[: NAMES.index(name)]
    assert all(layer(found, n).sqnr_db > 25 for n in sound)
    assert f"worst layers: {found.layers[0].layer} (" in found.sentence()


@pytest.fixture(scope="module")
def summed():
    """Two convolutions whose sum is mostly below 0, behind a Relu: what lies far below need not be held."""
    rng, net = np.random.default_rng(0), Net()
    x, terms = T("x", (1, 6, 6, 3), "float32"), []
    for name, shift in (("low", -6.0), ("other", 0.0)):
        w, b = rng.normal(size=(4, 3, 3, 3)), np.full(4, shift)
        parts = [T(f"{name}/w", dtype="float32", values=w), T(f"{name}/b", dtype="float32", values=b)]
        terms += net.op(
            "CONV_2D", [x, *parts], [T(name, (1, 6, 6, 4), "float32")], table="Conv2DOptions", strideW=1, strideH=1
        )
    total = T("total", (1, 6, 6, 4), "float32")
    net.op("ADD", terms, [total], table="AddOptions", fusedActivationFunction=1)
    (y,) = net.op(
        "MEAN", [total, T("axes", dtype="int32", values=[1, 2])], [T("pooled", (1, 4), "float32")],
        table="ReducerOptions",
    )  # fmt: skip
    model = net.build([x], [y])
    data = labelled(model)
    return model, data, steps.int8(model, steps.Int8Options(equalize="never"), Context(data=data)).model


def test_what_a_sum_drops_behind_its_relu_is_no_error(summed):
    model, data, made = summed
    tensors = {t.name.removesuffix("_q"): t for t in reader.parse(made.data).main.tensors}
    low = (-128 - tensors["low"].zero_points[0]) * tensors["low"].scales[0]
    assert low > -14  # the grid ends where the sum is 0 whatever is below: values reach -25
    found = explain(model, made, data)
    assert layer(found, "low").sqnr_db > 25
    assert layer(found, "low").clipped < 0.01
    assert found.tries == ()


def test_an_error_in_front_of_a_sum_that_does_count_is_still_seen(summed):
    model, data, made = summed
    found = explain(model, worse(made, "low"), data)
    assert layer(found, "low").sqnr_db < 20
    assert max(found.layers, key=lambda la: la.fall_db).layer == "low"
