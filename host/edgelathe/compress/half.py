"""A whole graph computed in float16, with casts where it meets float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgelathe.calibrate import ranges
from edgelathe.compress.graph import Names, array, constant, layer, skips
from edgelathe.compress.types import Context, Note

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgelathe.model.types import Model

LARGEST = 65504.0  # of finite float16 numbers
_MARGIN = 0.5  # of it is what calibration data may reach

# Operators that make their own type, read types that float16 is none of, or lose answers in it.
_FLOAT = frozenset(
    (
        "Cast", "CastLike", "ConstantOfShape", "Constant", "Range", "EyeLike", "RandomNormal", "RandomUniform",
        "Multinomial", "RandomNormalLike", "RandomUniformLike", "NonMaxSuppression", "QuantizeLinear",
        "DequantizeLinear", "Resize", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv",
        "QLinearMatMul", "CumSum", "RoiAlign", "Upsample", "If", "Loop", "Scan", "SequenceMap",
        "StringNormalizer", "TfIdfVectorizer", "Unique", "Bernoulli", "DFT", "STFT", "MelWeightMatrix",
        "HannWindow", "HammingWindow", "BlackmanWindow", "Det", "Einsum",
    )
)  # fmt: skip


def convert(ir_model: ir.Model, names: Names, model: Model, context: Context) -> tuple[Note, ...]:
    """Convert in place; `model` is the same graph, run on the calibration samples where there are some.

    A node computes in float16 unless the recipe skips it, no float16 form of it is there, or its inputs or outputs
    come near the largest float16 number on the samples. Types of all values have to be inferred.
    """
    graph, notes = ir_model.graph, []
    large = _too_large(graph, model, context)
    nodes = [n for n in tuple(graph) if _has_float(n)]
    chosen: list[ir.Node] = []
    for node in nodes:
        why = _why_not(node, large, context)
        notes.append(Note(layer(node), not why, why or "computed in float16"))
        if not why:
            chosen.append(node)
    _Casts(graph, names, set(chosen), notes).write(chosen)
    return tuple(notes)


class _Casts:
    """Rewrites the chosen nodes; each value is cast at most once each way."""

    def __init__(self, graph: ir.Graph, names: Names, chosen: set[ir.Node], notes: list[Note]) -> None:
        self._graph, self._names, self._chosen, self._notes = graph, names, chosen, notes
        self._halves: dict[ir.Value, ir.Value] = {}

    def write(self, nodes: list[ir.Node]) -> None:
        import onnx_ir as ir

        for node in nodes:
            for index, value in enumerate(node.inputs):
                if value is not None and value.dtype == ir.DataType.FLOAT and value.producer() not in self._chosen:
                    node.replace_input_with(index, self._half(value, node))
        for node in nodes:
            for value in node.outputs:
                if value.dtype == ir.DataType.FLOAT:
                    self._widen(node, value)

    def _half(self, value: ir.Value, node: ir.Node) -> ir.Value:
        """The value as float16: a constant in its place, else a cast right behind where it comes from."""
        import onnx_ir as ir

        if value in self._halves:
            return self._halves[value]
        data = array(value)
        if data is not None:
            if np.isfinite(data).all() and data.size and np.abs(data).max() > LARGEST:
                self._notes.append(Note(layer(node), True, f"'{value.name}' clipped to {LARGEST:g}"))
                data = np.clip(data, -LARGEST, LARGEST)
            out = constant(self._graph, data.astype(np.float16), self._names())
        else:
            cast = self._cast(value, ir.DataType.FLOAT16)
            producer = value.producer()
            if producer is None or producer.graph is not self._graph:
                self._graph.insert_before(self._graph[0], cast)
            else:
                self._graph.insert_after(producer, cast)
            out = cast.outputs[0]
        self._halves[value] = out
        return out

    def _widen(self, node: ir.Node, value: ir.Value) -> None:
        """Mark an output as float16 and give float32 to those that stay there, and to the caller of the model."""
        import onnx_ir as ir

        others = [u for u in value.uses() if u.node not in self._chosen]
        is_output, shape = value.is_graph_output(), value.shape
        value.type = ir.TensorType(ir.DataType.FLOAT16)
        if not others and not is_output:
            return
        cast = self._cast(value, ir.DataType.FLOAT)
        self._graph.insert_after(node, cast)
        real = cast.outputs[0]
        for user, index in others:
            user.replace_input_with(index, real)
        if is_output:
            value.name, real.name = real.name, value.name
            real.type, real.shape = ir.TensorType(ir.DataType.FLOAT), shape
            self._graph.outputs[self._graph.outputs.index(value)] = real

    def _cast(self, value: ir.Value, to: ir.DataType) -> ir.Node:
        import onnx_ir as ir

        node = ir.node("Cast", [value], {"to": to}, name=self._names())
        node.outputs[0].name = self._names()
        return node


def _has_float(node: ir.Node) -> bool:
    import onnx_ir as ir

    return any(v is not None and v.dtype == ir.DataType.FLOAT for v in (*node.inputs, *node.outputs))


def _why_not(node: ir.Node, large: set[str], context: Context) -> str:
    if skips(node, context.overrides):
        return "skipped by the recipe"
    if node.domain not in ("", "ai.onnx") or node.op_type in _FLOAT:
        return f"{node.op_type} stays in float32"
    if any(v.dtype is None for v in (*node.inputs, *node.outputs) if v is not None and v.name):
        return "the types of its values are not known"
    if any(v is not None and v.name in large for v in (*node.inputs, *node.outputs)):
        return "its values leave the range of float16"
    return ""


def _too_large(graph: ir.Graph, model: Model, context: Context) -> set[str]:
    import onnx_ir as ir

    if context.data is None or not len(context.data):
        return set()
    floats = [v for v in graph.inputs if v.dtype == ir.DataType.FLOAT]
    floats += [o for n in graph for o in n.outputs if o.dtype == ir.DataType.FLOAT and o.name]
    seen = ranges.collect(model, context.data, {str(v.name): None for v in floats})
    return {n for n, s in seen.items() if max(-s.low, s.high) > LARGEST * _MARGIN}
