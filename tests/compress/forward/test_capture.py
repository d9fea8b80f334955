from __future__ import annotations

import numpy as np
import pytest
from onnx.numpy_helper import to_array

from edgelathe.compress.forward import capture
from edgelathe.core.dataset import Dataset
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph


@pytest.mark.parametrize("samples", [3, 4, 6])
@pytest.mark.parametrize("batch", [4, "n"])
def test_every_sample_is_seen_once_whatever_the_batch(samples, batch):
    g = Graph(0)
    w = g.weights(5, 3)
    y = g.op("Relu", g.op("MatMul", "x", w))
    model = g.build(g.op("Neg", y), shape=(batch, 5))
    x = np.random.default_rng(1).normal(size=(samples, 5)).astype(np.float32)
    seen = list(capture.chunks(onnx_model.to_ir(model), [y], Dataset("d", {"x": x})))
    assert [i for rows, _ in seen for i in range(rows.start, rows.stop)] == list(range(samples))
    parts = [values[y] for _, values in seen]
    weights = next(to_array(i) for i in onnx_model.to_proto(model).graph.initializer if i.name == w)
    np.testing.assert_allclose(np.concatenate(parts), np.maximum(x @ weights, 0), rtol=1e-5, atol=1e-6)
