"""Micro-models: one pattern of a model cut out with the layers around it, once in integers and once in float.

A device times both, and tells which is quicker there. What the cut ends are made of is what the neighbours in the whole
model would hand over: a value that is stored in integers enters and leaves as integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.calibrate import ranges
from edgelathe.compress.graph import fold, opset
from edgelathe.compress.graph.canonical import canonical
from edgelathe.compress.graph.moves import Names, array, layer
from edgelathe.compress.integer import int8, placement, qplan
from edgelathe.compress.types import Context
from edgelathe.core.dataset import Dataset, take
from edgelathe.model import cut_onnx, run
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import onnx_ir as ir

    from edgelathe.model.types import Model

_TRIES = 4  # nodes of a pattern that are looked at: at some both forms are one
_REACH = 4  # nodes between the pattern and the layer next to it, at most


@dataclass(frozen=True, eq=False)
class Micro:
    """A pattern in both forms.

    Attributes:
        pattern: its name in `placement.PATTERNS`.
        layer: the node that was chosen: of those of the pattern with a choice the one that makes most values.
        integer: with the pattern in integers; real: in float. Both take one sample.
        config: session entries that both want.
    """

    pattern: str
    layer: str
    integer: Model
    real: Model
    config: Mapping[str, str]


def micros(model: Model, options: int8.Options, data: Dataset) -> Iterator[Micro]:
    """Both forms of every pattern that an integer plan of the model would hold; patterns without a choice are left out.

    Args:
        model: float, ONNX.
        options: of `int8`, resolved for the device; its `in_float` does not count.
        data: bound to the model; one sample is run.

    Raises UserError where the model does not run on the sample.
    """
    work = onnx_model.to_ir(opset.at_least(model)[0])
    fold.fold(work)
    names = Names(work.graph)
    canonical(work.graph, names)
    named = onnx_model.to_ir(onnx_model.from_ir(work, model.name))
    fold.infer_shapes(named)
    graph = named.graph
    plan = qplan.plan(graph, lambda node: "")
    integer = {*plan.weights, *plan.others}
    for pattern, find in placement.PATTERNS.items():
        found = sorted((n for n in find(graph) if n in integer), key=_size, reverse=True)
        made = (_micro(named, pattern, anchor, options, data) for anchor in found[:_TRIES])
        micro = next((m for m in made if m is not None), None)
        if micro is not None:
            yield micro


def _micro(work: ir.Model, pattern: str, anchor: ir.Node, options: int8.Options, data: Dataset) -> Micro | None:
    """None where both forms are one."""
    nodes = _around(anchor)
    order = {node: at for at, node in enumerate(work.graph)}
    inputs = _boundary(nodes)
    outputs = [
        str(o.name)
        for node in sorted(nodes, key=order.__getitem__)
        for o in node.outputs
        if o.is_graph_output() or any(u.node not in nodes for u in o.uses())
    ]
    whole = onnx_model.from_ir(work, "micro")
    first = take(data, [0] * run.batch_size(whole.signature)).inputs
    seen = ranges.capture(whole, inputs)({k: np.ascontiguousarray(v) for k, v in first.items()})
    arrays = {name: seen[name] for name in inputs}
    if len({len(a) if a.ndim else 0 for a in arrays.values()}) != 1:  # not all of them count samples first
        return None
    cut = cut_onnx.Suffix(tuple(sorted(order[n] for n in nodes)), tuple(inputs), tuple(outputs))
    part = onnx_model.from_proto(cut_onnx.behind(onnx_model.to_proto(whole), cut, arrays, outputs), f"micro-{pattern}")
    context = Context(data=Dataset("micro", arrays))
    plain = replace(options, equalize="never", weights=8, scale="minmax", rounding="nearest")
    integer, real = (int8.apply(part, replace(plain, in_float=text), context) for text in (placement.NONE, pattern))
    if integer.model.sha256 == real.model.sha256:
        return None
    ends = {str(v.name) for v in (*work.graph.inputs, *work.graph.outputs)}
    return Micro(pattern, layer(anchor), _bare(integer.model, ends), _bare(real.model, ends), integer.config)


def _around(anchor: ir.Node) -> set[ir.Node]:
    """The node with what lies between it and the next layers with weights on all sides, these included."""
    found = {anchor}
    # A layer is its own end: of the first and the last one the neighbour is wanted too.
    todo = [(anchor, "up", 0), (anchor, "down", 0)]
    while todo:
        node, way, far = todo.pop()
        if far > _REACH or (far and _is_layer(node)):
            continue
        if way == "up":
            near = [v.producer() for v in node.inputs if v is not None]
        else:
            near = [u.node for o in node.outputs for u in o.uses()]
        for other in near:
            if other is not None and other.graph is anchor.graph:
                found.add(other)
                todo.append((other, way, far + 1))
                if way == "down" and not _is_layer(other):  # what it joins with comes from a layer too
                    todo.append((other, "up", far + 1))
    return found


def _boundary(nodes: set[ir.Node]) -> list[str]:
    """Names of the computed values that the nodes read and do not make."""
    read = dict.fromkeys(v for n in nodes for v in n.inputs if v is not None and array(v) is None)
    return sorted(str(v.name) for v in read if v.producer() not in nodes)


def _bare(model: Model, ends: Collection[str]) -> Model:
    """The model without QuantizeLinear on its inputs and DequantizeLinear before its outputs: these become integers.

    `ends`: inputs and outputs of the whole model, which are float.
    """
    import onnx

    proto = onnx_model.to_proto(model)
    graph = proto.graph
    kinds = {t.name: t.data_type for t in graph.initializer}
    for info in graph.input:
        readers = [n for n in graph.node if info.name in n.input]
        if len(readers) == 1 and readers[0].op_type == "QuantizeLinear" and info.name not in ends:
            info.name = readers[0].output[0]
            info.type.tensor_type.elem_type = kinds[readers[0].input[2]]
            graph.node.remove(readers[0])
    makers = {o: n for n in graph.node for o in n.output}
    for info in graph.output:
        maker = makers.get(info.name)
        if maker is not None and maker.op_type == "DequantizeLinear" and info.name not in ends:
            read = any(info.name in n.input for n in graph.node)
            info.CopyFrom(onnx.helper.make_tensor_value_info(maker.input[0], kinds[maker.input[2]], None))
            if not read:
                graph.node.remove(maker)
    return onnx_model.from_proto(proto, model.name)


def _is_layer(node: ir.Node) -> bool:
    return node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and array(node.inputs[1]) is not None


def _size(node: ir.Node) -> int:
    """How many values it makes for one sample; 0 where that is not known."""
    shape = node.outputs[0].shape
    return 0 if shape is None else math.prod(n if isinstance(n, int) else 1 for n in shape)
