"""`int8-dynamic` in recurrent layers: an LSTM multiplies integers; weights of GRU and RNN are stored as int8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.calibrate.scales import store_weights, weight_scales
from edgelathe.compress.graph import moves as g

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

OPS = frozenset(("LSTM", "GRU", "RNN"))
DOMAIN = "com.microsoft"
STORED = "int8 weights, made float once at load: ONNX Runtime has integer kernels for LSTM only"
_NODE = 60  # bytes of one more node in the file, about


def why_not(node: ir.Node) -> str:
    """What keeps a layer in float; "" for nothing."""
    weights = [g.array(v) for v in node.inputs[1:3]]
    if len(weights) < 2 or any(w is None for w in weights):
        return "its weights are computed by the model"
    if any(w is not None and w.dtype != np.float32 for w in weights):
        return "its weights are not float32"
    count = sum(w.size for w in weights if w is not None)
    channels = sum(w.shape[0] * w.shape[1] for w in weights if w is not None)
    return "too small to pay" if count * 3 <= 5 * channels + 4 * _NODE else ""


def multiplies_integers(node: ir.Node) -> bool:
    """Whether ONNX Runtime has an integer kernel: LSTM in the usual order of axes."""
    return node.op_type == "LSTM" and not g.number(node, "layout", 0)


def lstm(node: ir.Node, names: g.Names, largest: int, *, per_channel: bool) -> None:
    """Rewrite as `DynamicQuantizeLSTM` (ContribOperators.md, com.microsoft): its input is quantized as it comes.

    W and R int8 [directions, inputs, 4 * hidden], scales and zero points [directions, 4 * hidden] or [directions].
    """
    graph, extra = g.graph_of(node), list[Any]()
    node.op_type, node.domain = "DynamicQuantizeLSTM", DOMAIN
    node.attributes.pop("layout", None)
    for index in (1, 2):
        q, scale = _quantized(node, index, largest, per_channel=per_channel)
        g.set_constant(node, index, np.ascontiguousarray(q.transpose(0, 2, 1)), names)
        extra += [g.constant(graph, v, names()) for v in (scale, np.zeros(scale.shape, np.int8))]
    node.resize_inputs(12)
    for at, value in zip((8, 9, 10, 11), extra, strict=True):
        node.replace_input_with(at, value)


def store(node: ir.Node, names: g.Names, *, per_channel: bool) -> None:
    """W and R become Cast(int8) * scale, which ONNX Runtime computes once, at load."""
    import onnx_ir as ir

    graph = g.graph_of(node)
    for index in (1, 2):
        q, scale = _quantized(node, index, 127, per_channel=per_channel)
        stored = g.set_constant(node, index, q, names)
        factor = g.constant(graph, scale.reshape(*scale.shape, *(1,) * (3 - scale.ndim)), names())
        cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT}, name=names())
        real = ir.node("Mul", [cast.outputs[0], factor], name=names())
        for made in (cast, real):
            made.outputs[0].name = names()
        graph.insert_before(node, [cast, real])
        node.replace_input_with(index, real.outputs[0])


def _quantized(
    node: ir.Node, index: int, largest: int, *, per_channel: bool
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Integers in the shape of the weights [directions, gates * hidden, inputs], scales [directions, gates * hidden]
    or [directions]."""
    w: NDArray[Any] | None = g.array(node.inputs[index])
    assert w is not None
    rows = w.reshape(-1, w.shape[2]) if per_channel else w.reshape(len(w), -1)
    scale = weight_scales(rows, 0, largest)
    return store_weights(rows, scale, 0, largest).reshape(w.shape), scale.reshape(w.shape[: 2 if per_channel else 1])
