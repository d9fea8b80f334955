from __future__ import annotations

import numpy as np

from edgelathe.compress.tflite import pool as tflite_pool
from edgelathe.model import tflite as reader
from support.tiny_tflite import DEFAULT, Net, T, answers


def pooled(size, side=4):
    x, y = T("x", (1, side, side, 3), "float32"), T("y", (1, side // size, side // size, 3), "float32")
    net = Net()
    net.op(
        "AVERAGE_POOL_2D", [x], [y], table="Pool2DOptions", padding=1, strideH=size, strideW=size, filterHeight=size,
        filterWidth=size,
    )  # fmt: skip
    return net.build([x], [y])


def test_a_pool_over_the_whole_image_becomes_its_mean():
    model = pooled(4)
    made = tflite_pool.global_means(model, lambda _: True)
    assert [op.op for op in reader.parse(made.data).main.operators] == ["MEAN"]
    assert made.signature == model.signature
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(answers(made, {"x": x}, DEFAULT)[0], answers(model, {"x": x}, DEFAULT)[0], atol=1e-6)


def test_other_pools_and_skipped_ones_stay():
    assert tflite_pool.global_means(model := pooled(2), lambda _: True) is model
    assert tflite_pool.global_means(model := pooled(4), lambda _: False) is model
