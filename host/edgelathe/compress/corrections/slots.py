"""Where the bias and the channel scales of a layer stand in a compressed graph, in whatever form, and how they change.

Integers behind a DequantizeLinear, float16 behind a Cast, plain reals; a layer without a bias gets one in the form that
ONNX Runtime fuses into its integer kernel: int32 in units of both scales.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.graph import moves as g
from edgelathe.compress.weights import qweights

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.graph.moves import Names

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Slot:
    """The bias of one layer.

    Attributes:
        node: that adds it: the layer's own, or an Add behind a product that has no place for one.
        index: of the node's input.
        now: [channels], zeros where there is none.
        unit: [channels] that its integers count; None: it is stored as reals of `dtype`.
        dtype: of the reals.
        gemm: whether the node, a MatMul, has to become a Gemm.
    """

    node: ir.Node
    index: int
    now: Array
    unit: Array | None
    dtype: np.dtype[Any]
    gemm: bool = False

    def stored(self, bias: Array) -> Array:
        """What becomes of a bias [channels] when it is stored."""
        if self.unit is None:
            return np.asarray(bias.astype(self.dtype).astype(np.float64))
        return np.asarray(_integers(bias, self.unit) * self.unit)

    def scaled(self, factor: Array) -> Slot:
        """The slot once the weights are multiplied by a factor [channels]."""
        return self if self.unit is None else replace(self, unit=self.unit * factor)

    def write(self, bias: Array, names: Names) -> None:
        """Store a bias [channels] in the graph."""
        node = self.node
        if self.gemm:
            node.op_type = "Gemm"
        old = node.inputs[self.index] if self.index < len(node.inputs) else None
        if self.unit is None:
            maker = old.producer() if old is not None else None
            if maker is not None and maker.op_type == "Cast" and len(maker.outputs[0].uses()) == 1:
                g.set_constant(maker, 0, bias.astype(self.dtype), names)
            else:
                kind = np.dtype(np.float32) if maker is not None else self.dtype  # a Cast that others read stays
                before = g.array(old)
                data = bias.astype(kind)
                same = before is not None and before.size == data.size
                g.set_constant(
                    node, self.index, data.reshape(before.shape) if before is not None and same else data, names
                )
            return
        q, scale = _integers(bias, self.unit), self.unit.astype(np.float32)
        maker = old.producer() if old is not None else None
        if maker is not None and len(maker.outputs[0].uses()) == 1:
            g.set_constant(maker, 0, q, names)
            if not np.array_equal(np.broadcast_to(_known(maker.inputs[1]), scale.shape), scale):
                g.set_constant(maker, 1, scale, names)
            return
        _restored(node, self.index, q, scale, names)


def slot(node: ir.Node, channels: int, axes: int | None) -> Slot | str:
    """Where the layer's bias stands or can stand; in words why it cannot.

    Args:
        node: Conv, ConvTranspose, Gemm, MatMul, or the last node of a product of dynamically quantized inputs.
        channels: of its output.
        axes: of what it reads, None: not known.
    """
    if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
        if g.number(node, "beta", 1.0) != 1.0 or g.number(node, "alpha", 1.0) != 1.0:
            return "its product or bias is scaled"
        return _at(node, 2, channels)
    if node.op_type == "Add":
        place = _summand(node)
        return _at(node, place, channels) if place is not None else "it has no bias"
    return _of_product(node, channels, axes) if node.op_type == "MatMul" else "it has no bias"


def _of_product(node: ir.Node, channels: int, axes: int | None) -> Slot | str:
    """The bias of a MatMul: that of an Add behind it, else it becomes a Gemm with one."""
    behind = g.only_consumer(node.outputs[0])
    place = _summand(behind) if behind is not None and behind.op_type == "Add" else None
    if behind is not None and place is not None:
        added = _at(behind, place, channels)
        if isinstance(added, Slot) and added.unit is None:
            return added
    if axes != 2:
        return "a product of more than two axes has no bias"
    found = _at(node, 2, channels)
    return replace(found, gemm=True) if isinstance(found, Slot) else found


def _summand(total: ir.Node) -> int | None:
    """Which input of an Add is a constant."""
    return next((i for i, v in enumerate(total.inputs) if _constant_behind(v) is not None), None)


def scale_weights(node: ir.Node, factor: Array, names: Names) -> bool:
    """Multiply the outputs of a layer by a positive factor [channels], by its weights; False where they hold no scale.

    The layer's bias is not touched.
    """
    value = node.inputs[1] if node.op_type in ("Conv", "Gemm", "MatMul") else None
    if value is None:
        return False
    axis, w, maker = qweights.channel_axis(node), g.array(value), value.producer()
    if w is not None and w.dtype.kind == "f":
        g.set_constant(node, 1, _times(w, factor, axis), names)
        return True
    if maker is None or len(value.uses()) != 1:
        return False
    if maker.op_type == "Cast" and (half := g.array(maker.inputs[0])) is not None and half.dtype.kind == "f":
        g.set_constant(maker, 0, _times(half, factor, axis), names)
        return True
    scale = g.array(maker.inputs[1]) if maker.op_type == "DequantizeLinear" else None
    if scale is None or g.number(maker, "block_size", 0):
        return False
    wide = np.broadcast_to(scale.astype(np.float64).reshape(-1), factor.shape) * factor
    if scale.shape != factor.shape:
        _widen(maker, axis, factor.size, names)
    g.set_constant(maker, 1, wide.astype(scale.dtype), names)
    return True


def _widen(restoring: ir.Node, axis: int, channels: int, names: Names) -> None:
    """Let a DequantizeLinear with one scale take one a channel."""
    import onnx_ir as ir

    zero = g.array(restoring.inputs[2]) if len(restoring.inputs) > 2 else None
    if zero is not None:
        g.set_constant(restoring, 2, np.full(channels, zero.reshape(-1)[0], zero.dtype), names)
    restoring.attributes.pop("axis", None)
    if axis != 1:
        restoring.attributes.add(ir.AttrInt64("axis", axis))


def _at(node: ir.Node, index: int, channels: int) -> Slot | str:
    """The slot at an input of a node."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return Slot(node, index, np.zeros(channels), _unit(node, channels), _dtype(node))
    found = _constant_behind(value)
    if found is None:
        return "its bias is computed by the model"
    if found.size not in (1, channels) or found.shape[-1:] not in ((), (1,), (found.size,)):
        return "its bias is none per channel"
    maker = value.producer()
    flat = np.broadcast_to(found.reshape(-1).astype(np.float64), channels)
    if maker is None or maker.op_type == "Cast":
        return Slot(node, index, flat.copy(), None, found.dtype)
    unit = np.broadcast_to(_known(maker.inputs[1]).reshape(-1).astype(np.float64), channels).copy()
    return Slot(node, index, flat * unit, unit, np.dtype(np.float32))


def _constant_behind(value: ir.Value | None) -> NDArray[Any] | None:
    """A constant of reals, or of int32 that count a constant scale; None for anything else."""
    found = g.array(value)
    if found is not None:
        return found if found.dtype.kind == "f" else None
    maker = value.producer() if value is not None else None
    if maker is None:
        return None
    inner = g.array(maker.inputs[0])
    if maker.op_type == "Cast" and inner is not None and inner.dtype.kind == "f":
        return inner
    whole = maker.op_type == "DequantizeLinear" and inner is not None and inner.dtype == np.int32
    return inner if whole and g.array(maker.inputs[1]) is not None else None


def _unit(node: ir.Node, channels: int) -> Array | None:
    """What the integers of a new bias count, where input and weights are integers with constant scales."""
    scales = []
    for value in node.inputs[:2]:
        maker = value.producer() if value is not None else None
        found = g.array(maker.inputs[1]) if maker is not None and maker.op_type == "DequantizeLinear" else None
        if found is None:
            return None
        scales.append(found.reshape(-1))
    if scales[0].size != 1 or scales[1].size not in (1, channels):
        return None
    return np.broadcast_to((scales[1] * scales[0]).astype(np.float64), channels).copy()


def _dtype(node: ir.Node) -> np.dtype[Any]:
    """Of a new bias of reals: that of constant weights."""
    w = g.array(node.inputs[1])
    return w.dtype if w is not None and w.dtype.kind == "f" else np.dtype(np.float32)


def _restored(node: ir.Node, index: int, q: NDArray[np.int32], scale: NDArray[np.float32], names: Names) -> None:
    """Give the node a bias of integers behind a DequantizeLinear of its own."""
    import onnx_ir as ir

    graph = g.graph_of(node)
    made = ir.node(
        "DequantizeLinear",
        [g.constant(graph, q, names()), g.constant(graph, scale, names())],
        {"axis": 0},
        name=names(),
    )
    made.outputs[0].name = names()
    graph.insert_before(node, made)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, made.outputs[0])


def _integers(bias: Array, unit: Array) -> NDArray[np.int32]:
    return qweights.integer_bias(bias, unit)  # type: ignore[arg-type]  # float64 units round the same


def _times(w: NDArray[Any], factor: Array, axis: int) -> NDArray[Any]:
    shape = [-1 if i == axis else 1 for i in range(w.ndim)]
    return np.asarray(w.astype(np.float64) * factor.reshape(shape), w.dtype)


def _known(value: ir.Value | None) -> NDArray[Any]:
    found = g.array(value)
    assert found is not None
    return found
