import numpy as np

from edgelathe.compress.graph.moves import layer
from edgelathe.compress.half import tensor_cores
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph


def test_widths_in_multiples_of_eight_fit():
    g = Graph()
    y = g.conv("x", 3, 16, name="stem")
    y = g.conv(y, 16, 16, group=16, name="depthwise")
    y = g.conv(y, 16, 24, group=2, name="grouped")
    y = g.op("ConvTranspose", y, g.weights(24, 8, 3, 3), name="up")
    y = g.op("Flatten", g.op("GlobalAveragePool", y))
    y = g.op("Gemm", y, g.weights(32, 8), g.const(np.zeros(32, np.float32)), transB=1, name="aligned")
    y = g.op("Relu", g.op("MatMul", y, g.weights(32, 10), name="head"))
    graph = onnx_model.to_ir(g.build(y)).graph
    found = {layer(n): tensor_cores.obstacle(n) for n in graph}
    assert found["stem"] == "3 inputs: no multiple of 8, tensor cores are padded or left out"
    assert found["depthwise"] == "depthwise, no work for tensor cores"
    assert found["grouped"] == "12 outputs: no multiple of 8, tensor cores are padded or left out"
    assert found["up"] == found["aligned"] == ""
    assert found["head"].startswith("10 outputs: ")
    assert {tensor_cores.widths(n) for n in graph if n.op_type in ("Relu", "Flatten")} == {None}
