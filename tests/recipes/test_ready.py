"""How a model is to be run, through recipes and through the model's metadata."""

from __future__ import annotations

from dataclasses import replace

from edgelathe.core import recipe as recipes
from edgelathe.core.device import SessionOptions
from edgelathe.recipes.ready import from_table, from_text, to_table
from edgelathe.recipes.run import session_text

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
