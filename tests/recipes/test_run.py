"""What a step is told of the steps before it."""

from dataclasses import replace

import numpy as np
import pytest

from edgelathe.compress.types import Applied
from edgelathe.core.profile import Hardware
from edgelathe.core.recipe import parse
from edgelathe.recipes import run, table
from edgelathe.recipes.resolve import resolve
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
