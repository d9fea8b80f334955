"""A compressed model that fell to chance is said to have, with the reason; others cost no word."""

import numpy as np
import pytest
from onnx import TensorProto

from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.core.recipe import parse
from edgelathe.model import onnx as onnx_model
from edgelathe.model import run as host
from edgelathe.recipes import chance
from edgelathe.recipes.resolve import resolve
from edgelathe.recipes.run import run
from support import schemas
from support.tiny_onnx import Graph, samples


def network(spread):
    g = Graph()
    factors = np.geomspace(1, spread, 16).astype(np.float32)
    first = g.const(g.rng.normal(size=(16, 3, 3, 3)).astype(np.float32) * factors[:, None, None, None])
    depth = g.const(g.rng.normal(size=(16, 1, 3, 3)).astype(np.float32) / factors[:, None, None, None])
    y = g.op("Relu", g.op("Conv", "x", first, pads=[1] * 4, name="first"))
    y = g.op("Relu", g.op("Conv", y, depth, pads=[1] * 4, group=16, name="depthwise"))
    y = g.op("GlobalAveragePool", g.op("Conv", y, g.weights(4, 16, 1, 1), name="last"))
    return g.build(g.op("Flatten", y))


def built(model, data, text, **more):
    recipe = resolve(parse(text), "onnx", Hardware(None, frozenset()), text)
    return run(recipe, model, data, text, **more)


def labelled(model):
    data = samples(model, 64)
    return Dataset(data.name, data.inputs, host.outputs(model, data.inputs)[0].argmax(1))


def test_a_model_at_chance_is_warned_of_with_the_mend():
    model = network(1e6)
    data = labelled(model)
    made = built(model, data, "int8(equalize=never,per_channel=false)")
    said = chance.warning(model, made, data)
    assert said.startswith("the model fell to chance on calibration samples: ")
    assert "int8(equalize=always)" in said or "int8(per_channel=true)" in said


def test_a_sound_model_is_not():
    model = network(1.0)
    data = labelled(model)
    assert chance.warning(model, built(model, data, "int8"), data) == ""
    assert chance.warning(model, built(model, data, "int8"), None) == ""


def test_each_step_that_changed_the_model_is_explained():
    model = network(1.0)
    data = labelled(model)
    fold, int8 = built(model, data, "int8", explain=True).steps
    assert fold.explained is None or fold.explained.sqnr_db > 90
    assert int8.explained is not None
    assert len(int8.explained.layers) == 3
    document = {
        "schema": "edgelathe.compress/1", "model": "m", "bytes_before": 1, "bytes_after": 1, "sha256": "0" * 64,
        "options": {"provider": "CPUExecutionProvider", "threads": 1, "config": {}},
        "steps": [s.to_json() for s in (fold, int8)],
    }  # fmt: skip
    schemas.validate(document)


def test_answers_in_words_are_not_judged():
    g = Graph()
    logits = g.op("Flatten", g.op("GlobalAveragePool", g.conv("x", 3, 4)))
    proto = onnx_model.to_proto(g.build(g.op("Cast", logits, to=TensorProto.STRING)))
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    model = onnx_model.from_proto(proto, "words")
    data = samples(model, 8)
    made = built(model, data, "int8")
    assert made.steps[-1].notes[0].done
    assert chance.warning(model, made, data) == ""
    with pytest.raises(UserError, match="is no array of numbers \\(text\\); export the model without it"):
        built(model, data, "int8", explain=True)
