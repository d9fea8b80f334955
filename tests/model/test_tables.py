"""The tables that inputs pick from are found through what only moves their numbers, and nothing else is guessed."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgelathe.model import onnx as onnx_model
from edgelathe.model import tables
from support.tiny_onnx import Graph
from support.tiny_tflite import Net, T


def ids(*names):
    return [helper.make_tensor_value_info(name, TensorProto.INT64, ("n", 6)) for name in names]


def built(g, y, *names):
    """A model with integer inputs alone."""
    proto = onnx_model.to_proto(g.build(y, inputs=ids(*names), ir_version=8))
    del proto.graph.input[0]
    return onnx_model.from_proto(proto, "tiny")


def test_words_and_segments_of_a_text_model():
    g = Graph()
    words = g.op("Gather", g.weights(100, 8), g.op("Cast", "ids", to=TensorProto.INT32))
    segments = g.op("Gather", g.weights(2, 8), "segments")
    model = built(g, g.op("Add", words, segments), "ids", "segments", "mask")
    assert tables.rows(model) == {"ids": 100, "segments": 2}


def test_the_smallest_of_several_tables_and_its_own_axis():
    g = Graph()
    first = g.op("Gather", g.weights(100, 8), "ids")
    second = g.op("Gather", g.weights(8, 50), "ids", axis=1)
    flat = g.op("Reshape", second, g.const(np.array([-1, 6, 8])))
    assert tables.rows(built(g, g.op("Add", first, flat), "ids")) == {"ids": 50}


def test_quantized_tables():
    g = Graph()
    table = g.op("DequantizeLinear", g.const(np.ones((40, 8), np.int8)), g.const(np.float32(0.1)))
    assert tables.rows(built(g, g.op("Gather", table, "ids"), "ids")) == {"ids": 40}


@pytest.mark.parametrize("op", ["Add", "Mod"])
def test_numbers_that_are_computed_with_are_not_followed(op):
    g = Graph()
    picked = g.op("Gather", g.weights(100, 8), g.op(op, "ids", g.const(np.int64(3))))
    assert tables.rows(built(g, picked, "ids")) == {}


def test_a_table_that_is_computed_has_rows_that_nobody_knows():
    g = Graph()
    table = g.op("MatMul", g.weights(100, 8), g.weights(8, 8))
    assert tables.rows(built(g, g.op("Gather", table, "ids"), "ids")) == {}


def test_joined_inputs_are_each_followed():
    g = Graph()
    both = g.op("Concat", "a", "b", axis=1)
    assert tables.rows(built(g, g.op("Gather", g.weights(9, 4), both), "a", "b")) == {"a": 9, "b": 9}


@pytest.mark.parametrize("op", ["GATHER", "EMBEDDING_LOOKUP"])
def test_tables_of_tflite(op):
    net = Net()
    ids, cast = T("ids", (6,), "int64"), T("cast", (6,), "int32")
    table, y = T("table", values=np.ones((30, 4), np.float32), dtype="float32"), T("y", (6, 4), "float32")
    net.op("CAST", [ids], [cast])
    net.op(op, [table, cast] if op == "GATHER" else [cast, table], [y])
    assert tables.rows(net.build([ids], [y])) == {"ids": 30}
