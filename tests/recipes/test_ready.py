"""How a model is to be run, through recipes and through the model's metadata."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgelathe.core import recipe as recipes
from edgelathe.core.device import SessionOptions
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.recipes.ready import from_table, from_text, ready, to_table
from edgelathe.recipes.run import session_text
from support.tiny_onnx import Graph

ENTRIES = {
    "session.disable_prepacking": "1",
    "provider.trt_fp16_enable": "True",
    "provider.trt_extra_plugin_lib_paths": "a.so;b.so",
    "edgelathe.io_binding": "1",
}
OPTIONS = SessionOptions("onnxruntime", "TensorrtExecutionProvider", 4, ENTRIES)


def test_provider_options_replay_from_a_recipes_file_and_cpus_do_not():
    made = replace(recipes.parse("int8"), session=to_table(replace(OPTIONS, cpus=(2, 3))))
    again = recipes.from_toml(recipes.to_toml(made), "recipe.toml")
    assert from_table(again.session, {}) == OPTIONS


def test_provider_options_replay_from_a_models_metadata():
    made = replace(recipes.parse("int8"), session=to_table(OPTIONS))
    found = from_text(session_text(made, {"session.qdqisint8allowed": "1"}))
    assert found == replace(OPTIONS, config={**ENTRIES, "session.qdqisint8allowed": "1"})


def dense(*types):
    """A dense layer of each type, casts between them."""
    g, y = Graph(), "x"
    for kind in types:
        y = g.op("Cast", y, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
        y = g.op("MatMul", y, g.const(np.eye(8, dtype=kind)))
    return g.build(g.op("Cast", y, to=TensorProto.FLOAT), shape=("n", 8))


NEED_FLOAT32 = ("int8", "int8-dynamic", "int4", "codebook", "mixed(size=4bits)", "prune(channels=0.3)")


@pytest.mark.parametrize("text", NEED_FLOAT32)
@pytest.mark.parametrize("types", [("float16",), ("float64",), ("float64", "float16")])
def test_steps_that_change_float32_alone_say_so_of_a_model_without(text, types):
    hardware = Hardware(None, frozenset())
    with pytest.raises(UserError) as caught:
        ready(recipes.parse(text), dense(*types), hardware, OPTIONS, f"recipe '{text}'")
    step, those = text.partition("(")[0], " and ".join(sorted(types))
    assert str(caught.value) == (
        f"recipe '{text}': {step}: takes weights in float32, those of this model are {those}; "
        "export the model in float32"
    )


@pytest.mark.parametrize("text", [*NEED_FLOAT32, "fp16", "sparse(amount=0.5)"])
def test_a_model_that_has_some_in_float32_is_taken(text):
    hardware = Hardware(None, frozenset())
    ready(recipes.parse(text), dense("float16", "float32"), hardware, OPTIONS, text)
    if text not in NEED_FLOAT32:
        ready(recipes.parse(text), dense("float16"), hardware, OPTIONS, text)


def test_weights_that_are_cast_are_not_judged():
    g = Graph()
    w = g.op("Cast", g.const(np.eye(8, dtype=np.float16)), to=TensorProto.FLOAT)
    model = g.build(g.op("MatMul", "x", w), shape=("n", 8))
    ready(recipes.parse("int8"), model, Hardware(None, frozenset()), OPTIONS, "int8")
