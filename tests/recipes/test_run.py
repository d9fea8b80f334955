"""What a step is told of the steps before it, and what a recipe keeps of what its steps chose."""

import weakref
from dataclasses import replace

import numpy as np
import pytest

from edgelathe.compress.mixed import alone
from edgelathe.compress.types import Applied
from edgelathe.core.profile import Hardware
from edgelathe.core.recipe import from_toml, parse, to_toml
from edgelathe.model import onnx as onnx_model
from edgelathe.recipes import run, table
from edgelathe.recipes.resolve import check_layers, resolve
from support.tiny_onnx import Graph, outputs, samples, sqnr


def model():
    g = Graph()
    y = g.op("Relu", g.bn(g.conv("x", 3, 8), 8))
    y = g.op("Relu", g.bn(g.conv(y, 8, 8, name="deep"), 8))
    y = g.op("Reshape", g.op("GlobalAveragePool", y), g.const(np.array([0, -1], np.int64)))
    return g.build(g.op("Gemm", y, g.weights(8, 4), g.const(np.zeros(4, np.float32))))


def built(recipe, of, data):
    return run.run(resolve(parse(recipe), "onnx", Hardware("aarch64", frozenset()), "r"), of, data, "r")


def test_a_recipe_may_end_with_corrections():
    of = model()
    data, unseen = samples(of, 96), samples(of, 48, seed=9)
    coarse = "int8(weights=3,depthwise=3,rounding=nearest,correct=false)"
    plain, corrected = (built(r, of, data) for r in (coarse, f"{coarse}+bias-correct+output-affine"))
    want = outputs(of, unseen)[0]
    quality = [sqnr(want, outputs(b.model, unseen)[0]) for b in (plain, corrected)]
    assert quality[1] > quality[0] + 1
    assert any(n.layer == "deep" and n.done for n in corrected.steps[2].notes)


@pytest.mark.parametrize(("recipe", "quantized"), [("fold+sparse", False), ("sparse+int8", True)])
def test_a_step_sees_the_model_at_the_start_and_the_float_form_that_was_quantized(recipe, quantized, monkeypatch):
    seen = []

    def look(given, options, context):
        seen.append((given, context))
        return Applied(given)

    row = table.STEPS["output-affine"]
    monkeypatch.setitem(table.STEPS, "output-affine", {"onnx": replace(row["onnx"], apply=look)})
    of = model()
    built(f"{recipe}+output-affine", of, samples(of, 16))
    ((given, context),) = seen
    assert context.reference is of
    assert (context.twin is not None) == quantized
    if context.twin is not None:
        assert sqnr(outputs(context.twin, samples(of, 4))[0], outputs(given, samples(of, 4))[0]) > 15


ARM = Hardware("aarch64", frozenset())


def branches(first, second):
    """Two convolutions, of the names given, and a fully connected layer."""
    g = Graph()
    x = g.op("Relu", g.bn(g.op("Conv", "x", g.weights(16, 3, 3, 3), name=first), 16))
    x = g.op("Relu", g.op("Conv", x, g.weights(16, 16, 3, 3, scale=0.05), name=second))
    y = g.op("Reshape", g.op("GlobalAveragePool", x), g.const(np.array([0, -1], np.int64)))
    return g.build(g.op("Gemm", y, g.weights(16, 4), g.const(np.zeros(4, np.float32)), name="head"))


def test_bits_that_were_chosen_stand_in_the_recipe_which_replays_without_a_search(monkeypatch):
    of = branches("conv[0]", "conv[1]")
    data = samples(of, 16)
    text = """
    [[step]]
    use = "mixed"
    size = "5bits"
    widths = "2/4/8"
    [step.layers."conv*"]
    per_channel = false
    weights = 0
    [step.layers."he*"]
    weights = 7
    """
    first = run.run(resolve(from_toml(text, "r"), "onnx", ARM, "r"), of, data, "r")
    assert first.recipe is not None
    layers = first.recipe.steps[-1].layers
    assert {k: v for k, v in layers.items() if "weights" not in v} == {"conv*": {"per_channel": False}}
    assert layers["head"] == {"weights": 7}
    assert layers.keys() == {"conv*", "conv[[]0]", "conv[[]1]", "head"}

    def search(*_):
        raise AssertionError("bits were looked for again")

    monkeypatch.setattr(alone, "forms", search)
    monkeypatch.setattr(alone.Subject, "run", search)
    again = resolve(from_toml(to_toml(first.recipe), "r"), "onnx", ARM, "r")
    check_layers(again, ("conv[0]", "conv[1]", "head"), "r")
    replayed = run.run(again, of, data, "r")
    assert replayed.model.sha256 == first.model.sha256
    assert replayed.recipe is None  # nothing is left to be chosen


def test_a_recipe_whose_steps_choose_nothing_stays_as_it_was_given():
    of = model()
    assert built("int8(weights=4)", of, samples(of, 8)).recipe is None


def test_what_a_step_is_given_can_be_let_go(monkeypatch):
    left = []

    def big(given, options, context):
        given, there = onnx_model.from_ir(onnx_model.to_ir(given), "other"), weakref.ref(given)
        left.append(there())
        return Applied(given, twin=given)

    row = table.STEPS["fp16"]["onnx"]
    monkeypatch.setitem(table.STEPS, "fp16", {"onnx": replace(row, apply=big, gives_twin=True)})
    of = model()
    found = built("fold+fp16", of, samples(of, 4))
    assert left == [None]
    assert found.model.sha256 != of.sha256
