"""Small ONNX models of many operators, quantized by ONNX Runtime's own tool, and what ONNX Runtime makes of them."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from edgelathe.model import io
from edgelathe.model import onnx as onnx_model
from edgelathe.model.types import Model

from .tiny_onnx import Graph, samples

EXACT = {"session.x64quantprecision": "1"}


def quantized(
    model: Model,
    kind: str = "QDQ",
    activations: str = "QUInt8",
    weights: str = "QInt8",
    n: int = 16,
    *,
    per_channel: bool = True,
) -> Model:
    """By onnxruntime.quantization, on random samples."""
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            inputs = samples(model, n, seed=3).inputs
            self.rows = iter([{k: v[i : i + 1] for k, v in inputs.items()} for i in range(n)])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.rows, None)

    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
            onnx.save(onnx.shape_inference.infer_shapes(onnx_model.to_proto(model)), before)
            q.quantize_static(
                before, after, Reader(), quant_format=q.QuantFormat[kind], per_channel=per_channel,
                activation_type=q.QuantType[activations], weight_type=q.QuantType[weights],
            )  # fmt: skip
            return io.from_bytes(after.read_bytes(), "onnx", "quantized")
    finally:
        logging.disable(logging.NOTSET)


def stored(model: Model) -> list[str]:
    """Names of the tensors that QuantizeLinear makes."""
    return [n.output[0] for n in onnx_model.to_proto(model).graph.node if n.op_type == "QuantizeLinear"]


def tensors(
    model: Model, feed: dict[str, np.ndarray], names: list[str], *, optimize: bool = True, config: Any = EXACT
) -> dict[str, np.ndarray]:
    """Inner tensors as ONNX Runtime computes them."""
    proto = onnx_model.to_proto(model)
    have = {o.name for o in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in have)
    so = ort.SessionOptions()
    so.log_severity_level, so.intra_op_num_threads = 4, 1
    if not optimize:
        so.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in dict(config).items():
        so.add_session_config_entry(key, value)
    session = ort.InferenceSession(proto.SerializeToString(), so, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, feed), strict=True))


def convolutions() -> Model:
    """Dense, depthwise, strided, grouped and dilated convolutions, clamps, a residual sum, SiLU, LeakyRelu, a head."""
    g = Graph()
    a = g.op("Relu", g.conv("x", 3, 8))
    b = g.op("Clip", g.conv(a, 8, 8, group=8), g.const(np.float32(0)), g.const(np.float32(6)))
    c = g.conv(b, 8, 16, 1, strides=[2, 2], pads=[0] * 4)
    d = g.op("Add", c, g.conv(c, 16, 16, 3, group=4, dilations=[2, 2], pads=[2] * 4))
    e = g.op("LeakyRelu", g.conv(g.op("Mul", d, g.op("Sigmoid", d)), 16, 8), alpha=0.1)
    y = g.op("Flatten", g.op("GlobalAveragePool", e))
    return g.build(g.op("Gemm", y, g.weights(8, 5), g.const(np.ones(5, np.float32))))


def pools() -> Model:
    """Maximum and mean over windows of three kinds, joined."""
    g = Graph()
    a = g.conv("x", 3, 8)
    b = g.op("MaxPool", a, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    c = g.op("AveragePool", a, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    d = g.op("AveragePool", a, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, count_include_pad=1)
    return g.build(g.op("ReduceMean", g.conv(g.op("Concat", b, c, d, axis=1), 24, 8, 1), axes=[2, 3]))


def islands() -> Model:
    """Operators without integer kernels between convolutions."""
    g = Graph()
    a = g.op("HardSwish", g.conv("x", 3, 8))
    b = g.op("Sub", g.op("Tanh", g.conv(a, 8, 8)), a)
    c = g.op("Exp", g.op("Neg", g.op("Abs", g.op("Div", b, g.const(np.float32(3))))))
    return g.build(g.conv(c, 8, 4), opset=14)


def transformer() -> Model:
    """One block: LayerNorm, attention, GELU."""
    g, e = Graph(), 16
    h = g.op("MatMul", "x", g.weights(8, e))
    n = g.op("LayerNormalization", h, g.const(np.ones(e, np.float32)), g.const(np.zeros(e, np.float32)), axis=-1)
    q, k, v = (g.op("Add", g.op("MatMul", n, g.weights(e, e)), g.weights(e, scale=0.3)) for _ in range(3))
    s = g.op("Mul", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1])), g.const(np.float32(0.25)))
    r = g.op("Add", g.op("MatMul", g.op("MatMul", g.op("Softmax", s, axis=-1), v), g.weights(e, e)), h)
    y = g.op("Add", g.op("MatMul", g.op("Gelu", g.op("MatMul", r, g.weights(e, 32))), g.weights(32, e)), r)
    return g.build(y, shape=("n", 6, 8), opset=20, ir_version=9)


def moves() -> Model:
    """Operators that only move numbers, and several outputs."""
    g = Graph()
    a = g.conv("x", 3, 8)
    s = g.op("Slice", a, g.const(np.array([0])), g.const(np.array([4])), g.const(np.array([1])))
    r = g.op("Resize", s, "", g.const(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    p = g.op("Pad", s, g.const(np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    one, two = g.op("Split", a, outputs=2, axis=1)
    t = g.op("MatMul", g.op("Transpose", a, perm=[0, 2, 3, 1]), g.weights(8, 4))
    d = g.conv(g.op("DepthToSpace", a, blocksize=2), 2, 4)
    return g.build([g.conv(r, 4, 4), g.conv(p, 4, 4), d, g.op("Add", g.conv(one, 4, 4), two), t])


def sequence() -> Model:
    """Convolutions over one axis, padded to the same length and unevenly."""
    g = Graph()
    a = g.op("Relu", g.op("Conv", "x", g.weights(8, 3, 5), auto_pad="SAME_UPPER", strides=[2]))
    return g.build(g.op("Conv", a, g.weights(4, 8, 3), g.weights(4), pads=[0, 2]), shape=("n", 3, 17))


def volumes() -> Model:
    """Convolutions and a maximum over three axes."""
    g = Graph()
    a = g.op("Relu", g.op("Conv", "x", g.weights(8, 3, 3, 3, 3), g.weights(8), pads=[1] * 6, strides=[1, 2, 1]))
    b = g.op("Conv", a, g.weights(16, 2, 3, 3, 3), group=4)
    return g.build(g.op("MaxPool", b, kernel_shape=[2, 2, 2]), shape=("n", 3, 6, 8, 7))


MODELS = {f.__name__: f for f in (convolutions, pools, islands, transformer, moves, sequence, volumes)}
