"""A whole graph computed in float16, with casts where it meets float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgelathe.calibrate import ranges
from edgelathe.compress.graph.moves import Names, array, constant, layer, skips
from edgelathe.compress.half.narrow import FLOAT16
from edgelathe.compress.types import LINEAR, Context, Note

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.model.types import Model

LARGEST = FLOAT16.largest
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
# Operators whose constants may be bounds, and those in which large negative ones are masks: both may be clipped.
_BOUNDS, _MASKS = frozenset(("Clip", "Min", "Max")), frozenset(("Add", "Sub", "Where"))
# Operators that hand large values on.
_CARRIERS = _MASKS | {"Mul", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand", "Concat", "Slice", "Identity"}


def convert(ir_model: ir.Model, names: Names, model: Model, context: Context) -> tuple[Note, ...]:
    """Convert in place; `model` is the same graph, run on the calibration samples where there are some.

    A node computes in float16 unless the recipe skips it, no float16 form of it is there, float16 cannot hold its
    constants, or its inputs or outputs come near the largest float16 number on the samples (without samples: come from
    a node whose constants do). Types of all values have to be inferred.
    """
    graph, notes = ir_model.graph, []
    measured = _too_large(graph, model, context)
    large = set(measured or ())
    nodes = [n for n in tuple(graph) if _has_float(n)]
    chosen: list[ir.Node] = []
    for node in nodes:
        beyond = _unfit(node)
        why = _why_not(node, large, context) or beyond
        notes.append(Note(layer(node), not why, why or "computed in float16"))
        if not why:
            chosen.append(node)
        elif measured is None and (beyond or node.op_type in _CARRIERS):
            large |= {str(v.name) for v in node.outputs} if beyond or _reads(node, large) else set()
    _Casts(graph, names, set(chosen), notes).write(chosen)
    if chosen and measured is None:
        notes.append(Note("model", False, "overflow was not looked for: no calibration data"))
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
            limit = min(_limit(u.node) for u in value.uses() if u.node in self._chosen)
            clipped = _clipped(data, limit)
            if (clipped != data).any():
                self._notes.append(Note(layer(node), True, f"'{value.name}' clipped to {limit:g}"))
            out = constant(self._graph, clipped.astype(np.float16), self._names())
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


def _reads(node: ir.Node, names: set[str]) -> bool:
    return any(v is not None and v.name in names for v in node.inputs)


def _limit(node: ir.Node) -> float:
    """Where a constant beyond the range may be clipped: masks at half of it, since something is added to them."""
    return LARGEST if node.op_type in _BOUNDS else LARGEST / 2


def _clipped(data: NDArray[np.float32], limit: float) -> NDArray[np.float32]:
    """Finite numbers beyond float16's range become the limit; infinite ones stay."""
    beyond = np.isfinite(data) & (np.abs(data) > LARGEST)
    return np.where(beyond, np.copysign(np.float32(limit), data), data)


def _unfit(node: ir.Node) -> str:
    """Which constant float16 cannot hold, nor a bound or mask within it stand for.

    Small numbers count where they are factors or the epsilon of a norm, and not where they are added to larger ones.
    """
    for index, value in enumerate(node.inputs):
        data = array(value)
        if value is None or data is None or data.dtype != np.float32:
            continue
        masks = node.op_type in _MASKS and not (data > LARGEST).any()
        held = _clipped(data, _limit(node)) if node.op_type in _BOUNDS or masks else data
        added = node.op_type in _MASKS or (node.op_type in LINEAR and index == 2)
        why = FLOAT16.beyond(held) or ("" if added and held.size > 1 else FLOAT16.faint(held))
        if why:
            return f"its constant '{value.name}' is {why}"
    return ""


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


def _too_large(graph: ir.Graph, model: Model, context: Context) -> set[str] | None:
    """Names of values that come near the largest float16 number on the samples; None without samples."""
    import onnx_ir as ir

    if context.data is None or not len(context.data):
        return None
    floats = [v for v in graph.inputs if v.dtype == ir.DataType.FLOAT]
    floats += [o for n in graph for o in n.outputs if o.dtype == ir.DataType.FLOAT and o.name]
    seen = ranges.collect(model, context.data, {str(v.name): None for v in floats})
    return {n for n, s in seen.items() if max(-s.low, s.high) > LARGEST * _MARGIN}
