"""`int8-dynamic`: int8 weights per channel without calibration; products quantize their input as it comes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.calibrate.scales import store_weights, weight_scales
from edgelathe.compress.graph import opset
from edgelathe.compress.graph.canonical import plain_gemm
from edgelathe.compress.graph.equalize import balance
from edgelathe.compress.graph.moves import (
    Names,
    array,
    constant,
    graph_of,
    layer,
    number,
    options_for,
    refuse_not_finite,
    refuse_quantized,
    standard_nodes,
)
from edgelathe.compress.integer import int8_recurrent
from edgelathe.compress.integer.int8 import is_narrow_x86
from edgelathe.compress.integer.qdq import finish
from edgelathe.compress.types import LINEAR, Applied, Context, Note, StepSpec, option
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.core.profile import Hardware
    from edgelathe.model.types import Model

Attributes = dict[str, Any] | None

_NODE = 60  # bytes of one more node in the file, about
_DYNAMIC = "int8 weights, activations quantized as they come"
_OPS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul")) | int8_recurrent.OPS
_STORED_ONLY = "int8 weights, made float once at load: ONNX Runtime's convolutions with dynamic activations are slow"


@dataclass(frozen=True)
class Options:
    """Options of `int8-dynamic`."""

    per_channel: bool = option(True, "one scale per output channel of the weights")
    equalize: str = option("auto", "rescale channels that differ first", choices=("auto", "always", "never"))
    reduce: bool | None = option(None, "7-bit weights, for CPUs that add two products in 16 bits")


def resolve(options: Options, hardware: Hardware) -> Options:
    """Inputs are uint8: on x86 without VNNI full-range weights would saturate the kernel's 16-bit sums."""
    return replace(options, reduce=is_narrow_x86(hardware) if options.reduce is None else options.reduce)


def apply(model: Model, options: Options, context: Context) -> Applied:
    """Store weights as int8; Gemm, MatMul and LSTM multiply integers, the others are made float once, at load.

    Raises UserError for a model that is quantized already or whose weights are not finite.
    """
    model, notes = opset.at_least(model)
    ir_model = onnx_model.to_ir(model)
    graph, names = ir_model.graph, Names(ir_model.graph)
    refuse_quantized(graph, model.name)
    refuse_not_finite(graph, model.name)
    notes += balance(graph, names, options.equalize, context.overrides)
    twin = onnx_model.from_ir(ir_model, model.name)
    inputs: dict[ir.Value, ir.Node] = {}
    for node in standard_nodes(graph):
        if node.op_type not in _OPS or array(node.inputs[1]) is None:
            continue
        own = options_for(options, node, context.overrides)
        recurrent = node.op_type in int8_recurrent.OPS
        why = "skipped by the recipe" if own is None else int8_recurrent.why_not(node) if recurrent else _why_not(node)
        if why or own is None:
            notes += (Note(layer(node), False, why),)
        elif recurrent:
            notes += (_recurrent(ir_model, node, own, names),)
        elif node.op_type.startswith("Conv"):
            _store_only(node, own, names)
            notes += (Note(layer(node), True, _STORED_ONLY),)
        else:
            _multiply_integers(node, own, names, inputs)
            notes += (Note(layer(node), True, _DYNAMIC),)
    if not any(n.done for n in notes):
        notes += (Note("model", False, "no layer with float weights that pays"),)
    finish(ir_model, names)
    return Applied(onnx_model.from_ir(ir_model, model.name), notes, twin=twin)


def _recurrent(model: ir.Model, node: ir.Node, options: Options, names: Names) -> Note:
    name = layer(node)
    if not int8_recurrent.multiplies_integers(node):
        int8_recurrent.store(node, names, per_channel=options.per_channel)
        return Note(name, True, int8_recurrent.STORED)
    int8_recurrent.lstm(node, names, 64 if options.reduce else 127, per_channel=options.per_channel)
    model.opset_imports[int8_recurrent.DOMAIN] = 1
    return Note(name, True, _DYNAMIC)


def _why_not(node: ir.Node) -> str:
    w, bias = array(node.inputs[1]), node.inputs[2] if len(node.inputs) > 2 else None
    assert w is not None
    if w.dtype != np.float32:
        return f"its weights are {w.dtype}"
    if node.op_type in ("Gemm", "MatMul") and (w.ndim != 2 or number(node, "transA", 0)):
        return "ONNX Runtime has no integer kernel for this form"
    if node.op_type == "Gemm" and bias is not None and array(bias) is None:
        return "its bias is computed by the model"
    channels = w.shape[1 if node.op_type == "ConvTranspose" else 0]
    extra = 2 if node.op_type.startswith("Conv") else 5
    return "too small to pay" if w.size * 3 <= 4 * channels + extra * _NODE else ""


def _store_only(node: ir.Node, options: Options, names: Names) -> None:
    """W becomes Cast(int8) * scale, which ONNX Runtime computes once, at load (a DequantizeLinear it would not)."""
    w = array(node.inputs[1])
    assert w is not None
    axis = (1 if node.op_type == "ConvTranspose" else 0) if options.per_channel else None
    scale = weight_scales(w, axis, 127)
    stored = store_weights(w, scale, axis, 127)
    graph, old = graph_of(node), node.inputs[1]
    assert old is not None
    shape = [-1 if i == axis else 1 for i in range(w.ndim)]
    number_form = _add(graph, node, "Cast", [_replace(graph, old, stored, names)], names, {"to": 1})
    factor = constant(graph, scale.reshape(shape if axis is not None else ()), names())
    node.replace_input_with(1, _add(graph, node, "Mul", [number_form, factor], names))


def _multiply_integers(node: ir.Node, options: Options, names: Names, inputs: dict[ir.Value, ir.Node]) -> None:
    """y = x W + b as integers: ONNX Runtime fuses the six nodes into one DynamicQuantizeMatMul."""
    if node.op_type == "Gemm":
        plain_gemm(node, names)
    graph, (x, old) = graph_of(node), node.inputs[:2]
    w, bias = array(old), node.inputs[2] if len(node.inputs) > 2 else None
    assert w is not None
    assert x is not None
    assert old is not None
    w, largest = (w.T if number(node, "transB", 0) else w), 64 if options.reduce else 127
    axis = 1 if options.per_channel else None
    scale = weight_scales(w, axis, largest)
    weights = _replace(graph, old, store_weights(w, scale, axis, largest), names)
    if x not in inputs:
        inputs[x] = _insert(graph, node, "DynamicQuantizeLinear", [x], names, outputs=3)
    xq, xs, xz = inputs[x].outputs
    product = _add(graph, node, "MatMulInteger", [xq, weights, xz], names)
    factor = _add(graph, node, "Mul", [xs, constant(graph, scale, names())], names)
    real = _add(graph, node, "Cast", [product], names, {"to": 1})
    # The layer's own node becomes the last one, so that its name and its output stay.
    node.attributes.clear()
    node.resize_inputs(2)
    if bias is None:
        node.op_type = "Mul"
        node.replace_input_with(0, real)
        node.replace_input_with(1, factor)
    else:
        node.op_type = "Add"
        node.replace_input_with(0, _add(graph, node, "Mul", [real, factor], names))
        node.replace_input_with(1, bias)


def _replace(graph: ir.Graph, old: ir.Value, data: NDArray[Any], names: Names) -> ir.Value:
    """An initializer under the name of the old one, where only one layer reads that."""
    name = None
    if len(old.uses()) == 1 and not old.is_graph_output() and old.name:
        name = old.name
        del graph.initializers[name]
    return constant(graph, data, name or names())


def _add(
    graph: ir.Graph,
    before: ir.Node,
    op: str,
    inputs: list[ir.Value],
    names: Names,
    attributes: dict[str, Any] | None = None,
) -> ir.Value:
    return _insert(graph, before, op, inputs, names, attributes).outputs[0]


def _insert(
    graph: ir.Graph,
    before: ir.Node,
    op: str,
    inputs: list[ir.Value],
    names: Names,
    attributes: Attributes = None,
    outputs: int = 1,
) -> ir.Node:
    import onnx_ir as ir

    node = ir.node(op, inputs, attributes or {}, num_outputs=outputs, name=names())
    for o in node.outputs:
        o.name = names()
    graph.insert_before(before, node)
    return node


SPEC = StepSpec(
    "int8 weights, activations quantized at run time; no data needed",
    Options,
    apply,
    after=("fold",),
    resolve=resolve,
    ops=LINEAR | int8_recurrent.OPS,
    final=True,
    large=True,
    float32=True,
)
