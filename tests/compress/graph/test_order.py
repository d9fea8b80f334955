"""Models whose nodes stand in no order, or share names, meet one rule before any step."""

import numpy as np
import pytest

from edgelathe.compress.graph.order import ordered
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.core.recipe import parse
from edgelathe.model import io
from edgelathe.model import onnx as onnx_model
from edgelathe.recipes import run
from edgelathe.recipes.resolve import resolve
from support.tiny_onnx import Graph, outputs, samples


@pytest.fixture(scope="module")
def model():
    g = Graph()
    y = g.op("Flatten", g.op("GlobalAveragePool", g.op("Relu", g.op("Conv", "x", g.weights(16, 3, 3, 3), name="a"))))
    return g.build(g.op("Gemm", y, g.weights(16, 40), g.weights(40), name="b"))


def changed(model, change):
    proto = onnx_model.to_proto(model)
    change(proto.graph)
    return io.from_bytes(proto.SerializeToString(), "onnx", "m")


def turned(graph):
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes[::-1])


def test_a_sorted_model_is_left_byte_for_byte(model):
    assert ordered(model) is model


@pytest.mark.parametrize("recipe", ["fp16", "prune(channels=0.25)", "mixed(size=6bits,widths=4/8)", "int4"])
def test_every_step_takes_nodes_in_any_order_and_makes_the_same_of_them(model, recipe):
    data = samples(model, 16)

    def made(of):
        resolved = resolve(parse(recipe), "onnx", Hardware("aarch64", frozenset()), "r")
        return run.run(resolved, of, data, "r").model

    for want, have in zip(*(outputs(made(m), data) for m in (model, changed(model, turned))), strict=True):
        assert np.allclose(want, have, atol=1e-5)


@pytest.mark.parametrize("recipe", ["fp16", "int8", "prune", "int4"])
def test_nodes_of_one_name_are_refused_in_the_same_words_by_every_step(model, recipe):
    def same(graph):
        for node in graph.node[:2]:
            node.name = "same"

    resolved = resolve(parse(recipe), "onnx", Hardware("aarch64", frozenset()), "r")
    with pytest.raises(UserError, match="m: 2 nodes are called 'same', and layers are told apart by name; give each"):
        run.run(resolved, changed(model, same), samples(model, 8), "r")
