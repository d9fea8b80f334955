"""An affine map per channel put behind a value of a graph: into the linear layer that makes it, else as Mul and Add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.corrections.slots import Slot, scale_weights, slot
from edgelathe.compress.graph import fold_linear
from edgelathe.compress.graph import moves as g
from edgelathe.compress.graph.canonical import take_over

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.corrections.affine_fit import Map

_MOVES = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"))


def axis_of(value: ir.Value) -> int:
    """The axis of channels of a model's answer: 1 right behind a convolution, else the last."""
    node = value.producer()
    while node is not None and node.op_type in ("QuantizeLinear", "DequantizeLinear", "Cast", "Identity", "Relu"):
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    spatial = ("Conv", "ConvTranspose", "GlobalAveragePool", "AveragePool", "MaxPool", "Resize", "BatchNormalization")
    return 1 if node is not None and node.op_type in spatial else -1


def write(value: ir.Value, by: Map, axis: int, axes: int, dtype: np.dtype[Any], names: g.Names) -> str:
    """Map `value`, in place, and say in words how; values [..., channels, ...] of `axes` axes and a float `dtype`."""
    layer = _layer(value, by.scale.size, axis)
    if layer is not None and _fold(*layer, by, names):
        return f"into {g.layer(layer[0])}"
    shape = [-1 if i == axis % axes else 1 for i in range(axes)] if axis % axes != axes - 1 else [-1]
    steps = []
    if (by.scale != 1).any():
        steps.append(("Mul", by.scale))
    if by.shift.any():
        steps.append(("Add", by.shift))
    for op, numbers in steps:
        value = _behind(value, op, numbers.astype(dtype).reshape(shape), names)
    return f"by {' and '.join(op for op, _ in steps)} behind {g.layer(layer[0]) if layer else 'the last operator'}"


def _layer(value: ir.Value, channels: int, axis: int) -> tuple[ir.Node, Slot] | None:
    """The linear layer that makes the value, channel by channel, and its bias; None where it is not that plain."""
    at, moved = value, False
    while (node := at.producer()) is not None and node.op_type in _MOVES:
        source = node.inputs[0]
        if source is None or g.only_consumer(source) is None:
            return None
        at, moved = source, True
    if node is not None and node.op_type == "Add":  # a product's bias
        source = next((v for v in node.inputs if v is not None and g.array(v) is None), None)
        inner = source.producer() if source is not None and g.only_consumer(source) is node else None
        node = inner if inner is not None and inner.op_type == "MatMul" else None
    if node is None or node.op_type not in ("Conv", "Gemm", "MatMul") or (moved and node.op_type == "Conv"):
        return None
    if axis != (1 if node.op_type == "Conv" else -1) and not (axis == -1 and node.op_type == "Gemm"):
        return None
    found = slot(node, channels, 2 if node.op_type == "Gemm" else g.rank(node.inputs[0]))
    if not isinstance(found, Slot) or (found.node is not node and found.node.outputs[0] is not at):
        return None
    weights = fold_linear.channels(node) if g.array(node.inputs[1]) is not None else channels
    return (node, found) if weights == channels else None


def _fold(node: ir.Node, found: Slot, by: Map, names: g.Names) -> bool:
    """Scale the layer's weights and bias and shift the bias; False where the weights hold no scale."""
    if (by.scale != 1).any():
        if not scale_weights(node, by.scale, names):
            return False
        found = found.scaled(by.scale)
    found.write(found.now * by.scale + by.shift, names)
    return True


def _behind(value: ir.Value, op: str, numbers: NDArray[Any], names: g.Names) -> ir.Value:
    """One more operator with a constant right behind a value; what read the value reads the result."""
    import onnx_ir as ir

    maker = value.producer()
    assert maker is not None
    graph = g.graph_of(maker)
    made = ir.node(op, [value, g.constant(graph, numbers, names())], name=names())
    made.outputs[0].name = names()
    made.outputs[0].type = value.type
    graph.insert_after(maker, made)
    shape = value.shape
    take_over(value, made)
    made.outputs[0].shape = shape
    return made.outputs[0]
