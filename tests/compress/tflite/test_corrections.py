"""`bias-correct` and `output-affine` of TFLite files."""

from dataclasses import replace

import numpy as np
import pytest

from edgelathe.compress.tflite import bias_correct as bias_correct_tflite
from edgelathe.compress.tflite import output_affine as output_affine_tflite
from edgelathe.compress.tflite import steps as tflite
from edgelathe.compress.tflite.file import File
from edgelathe.compress.tflite.layers import layers
from edgelathe.compress.types import Context
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.model import io, run
from edgelathe.model import tflite as reader

STEPS = {
    "bias": (bias_correct_tflite.apply, bias_correct_tflite.Options()),
    "affine": (output_affine_tflite.apply, output_affine_tflite.Options()),
}


@pytest.fixture(scope="module")
def model(data_dir):
    return io.load(data_dir / "cifar10_resnet8" / "model.tflite")


@pytest.fixture(scope="module")
def data(data_dir):
    with np.load(data_dir / "cifar10_resnet8" / "calib.npz") as z:
        return Dataset("calib", {"input_1": z["x"][:96].astype(np.float32)})


@pytest.fixture(scope="module")
def integer(model, data):
    return tflite.int8(model, tflite.Int8Options(), Context(data=data)).model


def off(model, chosen):
    """The file with a third of the biases of some layers off by more than they are on average."""
    file, graph = File(model.data), reader.parse(model.data).main
    for la in layers(graph)[chosen]:
        stored = file.constant(la.bias).copy()
        stored[::3] += np.int32(np.abs(stored).mean() + 500)
        file.set_constant(la.bias, stored)
    return io.from_bytes(file.data(), "tflite", "small")


@pytest.fixture(scope="module")
def small(integer):
    return off(integer, slice(None))


def lost(model, other, data):
    x = {"input_1": data.inputs["input_1"][:48]}
    want, have = (run.outputs(m, x)[0] for m in (model, other))
    return float(np.square(want - have).sum())


@pytest.mark.parametrize("step", ["bias", "affine"])
def test_wrong_biases_are_put_right_in_a_file_of_the_same_size(step, model, integer, small, data):
    apply, options = STEPS[step]
    small = small if step == "bias" else off(integer, slice(-1, None))
    result = apply(small, options, Context(data=data, reference=model, twin=model))
    assert lost(model, result.model, data) < 0.7 * lost(model, small, data)
    assert result.model.bytes == small.bytes
    assert result.model.signature == small.signature
    assert result.notes[-1].done


@pytest.mark.parametrize("step", ["bias", "affine"])
def test_a_file_without_errors_stays_as_it_is(step, model, data):
    apply, options = STEPS[step]
    result = apply(model, options, Context(data=data, reference=model, twin=model))
    assert result.model is model
    assert not any(n.done for n in result.notes)


@pytest.mark.parametrize("step", ["bias", "affine"])
def test_what_is_missing_is_said(step, model, small, data):
    apply, options = STEPS[step]
    told = Context(data=data, reference=model, twin=model)
    for change, says in (
        ({"data": None}, "needs calibration data"),
        ({"reference": None, "twin": None}, "no step before it has"),
        ({"data": Dataset("few", {"input_1": data.inputs["input_1"][:5]})}, "5 different samples are too few"),
    ):
        with pytest.raises(UserError, match=says):
            apply(small, options, replace(told, **change))


def test_layers_that_the_recipe_skips_keep_their_bias(model, small, data):
    told = Context(data=data, twin=model, overrides={"*": {"skip": True}})
    result = bias_correct_tflite.apply(small, bias_correct_tflite.Options(), told)
    assert result.model is small
