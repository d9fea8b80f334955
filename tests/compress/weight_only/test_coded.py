from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgelathe.compress.graph.moves import Names
from edgelathe.compress.graph.packed import Packer
from edgelathe.compress.weight_only.coded import Coded
from edgelathe.model import onnx as onnx_model
from edgelathe.model import run
from support.tiny_onnx import Graph

RNG = np.random.default_rng(8)
INDICES = RNG.integers(0, 13, (6, 4, 3, 3))
TABLE = RNG.normal(size=13).astype(np.float32)
OWN = RNG.integers(-127, 128, (6, 13)).astype(np.int8)
STEPS = RNG.uniform(0.1, 2, 6).astype(np.float32)


@pytest.mark.parametrize(
    "coded",
    [
        Coded(INDICES, TABLE),
        Coded(INDICES, TABLE, STEPS),
        Coded(INDICES, TABLE, STEPS[:4], axis=1),
        Coded(INDICES, OWN, STEPS),
        Coded(INDICES, OWN[:4].astype(np.int16) * 200, STEPS[:4], axis=1),
    ],
    ids=["table", "factors", "factors of axis 1", "own tables", "own tables of axis 1"],
)
def test_the_runtime_has_what_was_settled_to_the_bit(coded):
    g = Graph()
    model = g.build(g.op("Identity", "x"), shape=(1,), opset=11, ir_version=6)
    work = onnx_model.to_ir(model)
    value = coded.write(Packer(work.graph, Names(work.graph)))
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(INDICES.shape)
    work.graph.outputs[0] = value
    (got,) = run.session(onnx_model.from_ir(work, "coded"))({"x": np.zeros(1, np.float32)})
    np.testing.assert_array_equal(got, coded.real())
    assert coded.bits == 4
    assert coded.bytes == INDICES.size // 2 + coded.table.nbytes + (0 if coded.steps is None else coded.steps.nbytes)


def test_what_the_values_are():
    assert Coded(np.array([[2, 0]]), TABLE, np.float32([3.0])).real().tolist() == [[TABLE[2] * 3, TABLE[0] * 3]]
    real = Coded(INDICES, OWN[:4], STEPS[:4], axis=1).real()
    assert real[5, 3, 1, 2] == np.float32(OWN[3, INDICES[5, 3, 1, 2]]) * STEPS[3]
