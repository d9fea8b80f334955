import json

import pytest

from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.core.recipe import parse
from edgelathe.model import io, metadata
from edgelathe.recipes import ready, run
from edgelathe.recipes.resolve import resolve
from support.tiny_onnx import Graph


def built(recipe):
    g = Graph()
    model = g.build(g.op("Relu", g.bn(g.conv("x", 3, 4), 4)))
    resolved = resolve(parse(recipe), "onnx", Hardware("aarch64", frozenset()), "r")
    data = ready.calibration(None, resolved, model, "r")
    return run.run(resolved, model, data, "r"), data


def test_without_data_the_result_is_labelled_everywhere():
    made, data = built("int8")
    assert made.synthetic.startswith("synthetic images that match 1 BatchNormalization layers")
    assert made.synthetic in data.warnings[0]
    assert made.steps[-1].notes[-1].what == f"calibrated without data: {made.synthetic}"
    assert metadata.read(made.model, metadata.CALIBRATION) == f"synthetic: {made.synthetic}"
    assert "calibrated without data" in json.dumps(made.steps[-1].to_json())


def test_without_data_equal_recipes_give_equal_bytes():
    assert built("int8")[0].model.sha256 == built("int8")[0].model.sha256


def test_nothing_is_made_up_where_no_step_asks():
    made, data = built("fp16")
    assert data is None
    assert made.synthetic == ""
    assert metadata.read(made.model, metadata.CALIBRATION) is None


def test_made_up_images_explain_nothing():
    g = Graph()
    model = g.build(g.conv("x", 3, 4))
    resolved = resolve(parse("int8"), "onnx", Hardware("aarch64", frozenset()), "r")
    data = ready.calibration(None, resolved, model, "r")
    with pytest.raises(UserError, match="needs samples"):
        run.run(resolved, model, data, "r", explain=True)


def test_a_tflite_model_is_calibrated_on_made_up_images_too(data_dir):
    model = io.load(data_dir / "cifar10_resnet8" / "model.tflite")
    resolved = resolve(parse("int8(correct=false)"), "tflite", Hardware("aarch64", frozenset()), "r")
    data = ready.calibration(None, resolved, model, "r")
    assert "input 0 to 255 guessed" in data.how
    made = run.run(resolved, model, data, "r")
    assert metadata.read(made.model, metadata.CALIBRATION) == f"synthetic: {made.synthetic}"
