import numpy as np
import pytest

from edgelathe.compress.integer import int8
from edgelathe.compress.integer.micro import micros
from edgelathe.core.profile import Hardware
from edgelathe.model import run
from support.tiny_onnx import EXACT, Graph, operators, samples

OPTIONS = int8.resolve(int8.Options(), Hardware("aarch64", frozenset({"sdot"})))


@pytest.fixture(scope="module")
def found():
    g = Graph()
    a = g.op("Relu", g.conv("x", 3, 8))
    b = g.op("Relu", g.op("Add", g.conv(a, 8, 8), a, name="small"))
    c = g.op("Relu", g.conv(b, 8, 16))
    c = g.op("Add", g.op("Mul", g.conv(c, 16, 16), g.op("Sigmoid", c)), c, name="large")
    y = g.op("Flatten", g.op("GlobalAveragePool", g.conv(c, 16, 4)))
    model = g.build(g.op("Gemm", y, g.weights(4, 5), g.const(np.ones(5, np.float32))))
    return {m.pattern: m for m in micros(model, OPTIONS, samples(model, 2))}


def test_every_pattern_that_has_a_choice_is_cut_out(found):
    assert set(found) >= {"first", "last", "add", "gate"}
    assert found["add"].layer == "large"  # of two the one that makes most values


def test_both_forms_run_and_give_the_same_but_for_rounding(found):
    for micro in found.values():
        for model in (micro.integer, micro.real):
            feed = {i.name: np.ones([d or 1 for d in i.shape], i.dtype) for i in model.signature.inputs}
            assert all(np.isfinite(o).all() for o in run.session(model, EXACT)(feed))


def test_ends_are_what_the_neighbours_hand_over(found):
    add = found["add"]
    assert {i.dtype for i in add.integer.signature.inputs} == {"int8"}
    assert [o.dtype for o in add.integer.signature.outputs] == ["int8"]
    assert operators(add.integer).count("Conv") == 3  # the layers around it are there: beside them it has to count
    for micro in (found["first"].integer, found["first"].real):  # an input of the whole model is float
        assert [i.dtype for i in micro.signature.inputs] == ["float32"]
    assert [o.dtype for o in found["last"].integer.signature.outputs] == ["float32"]
