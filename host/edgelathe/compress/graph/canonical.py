"""Forms that ONNX Runtime has integer kernels for, in place of equal ones that it has none for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.graph.moves import (
    Names,
    array,
    constant,
    graph_of,
    ints,
    number,
    rank,
    set_constant,
    standard_nodes,
)

if TYPE_CHECKING:
    import onnx_ir as ir


def canonical(graph: ir.Graph, names: Names) -> None:
    """Rewrite in place: plain Gemm, GlobalAveragePool for means over all of an image, Reshape for Flatten."""
    for node in standard_nodes(graph):
        if node.op_type == "Gemm":
            plain_gemm(node, names)
        elif node.op_type == "ReduceMean":
            _global_mean(node, names)
        elif node.op_type == "Flatten" and number(node, "axis", 1) == 1:
            _reshape(node, names)
        elif node.op_type == "Conv" and _is_head(node):
            _head_as_gemm(node, names)


def plain_gemm(node: ir.Node, names: Names) -> None:
    """alpha and beta go into the constants, a bias of one row becomes a vector."""
    w, bias = array(node.inputs[1]), array(node.inputs[2]) if len(node.inputs) > 2 else None
    if w is None or w.dtype != np.float32 or (len(node.inputs) > 2 and node.inputs[2] is not None and bias is None):
        return
    count = w.shape[0 if number(node, "transB", 0) else 1]
    if bias is not None and bias.size not in (1, count):
        return
    alpha, beta = (np.float32(number(node, k, 1.0)) for k in ("alpha", "beta"))
    for key in ("alpha", "beta"):
        node.attributes.pop(key, None)
    if alpha != 1:
        set_constant(node, 1, w * alpha, names)
    if bias is not None and (beta != 1 or bias.shape != (count,)):
        set_constant(node, 2, np.broadcast_to(bias.reshape(-1) * beta, (count,)).copy(), names)


def _global_mean(node: ir.Node, names: Names) -> None:
    import onnx_ir as ir

    given = array(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = ints(node, "axes") if given is None else given.tolist()
    axis_count = rank(node.inputs[0])
    if axes is None or axis_count is None or axis_count < 3:
        return
    if sorted(a % axis_count for a in axes) != list(range(2, axis_count)):
        return
    keeps = number(node, "keepdims", 1)
    if keeps and axis_count == 3 and _is_of_norm(node):
        return
    node.attributes.clear()
    node.resize_inputs(1)
    node.op_type = "GlobalAveragePool"
    if keeps:
        return
    graph, output = graph_of(node), node.outputs[0]
    flat = ir.node("Reshape", [output, constant(graph, np.array([0, -1], np.int64), names())], name=names())
    flat.outputs[0].name = names()
    graph.insert_after(node, flat)
    take_over(output, flat)


def _is_of_norm(node: ir.Node) -> bool:
    """Whether this mean, or mean of squares, is part of a layer normalization, which ONNX Runtime fuses as it is."""
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    squares = source is not None and (
        source.op_type == "Pow" or (source.op_type == "Mul" and source.inputs[0] is source.inputs[1])
    )
    return squares or any(u.node.op_type == "Sub" for u in node.outputs[0].uses())


def _is_head(node: ir.Node) -> bool:
    """Whether this is a classifier written as a convolution over one pixel, the last layer with weights."""
    w, source = array(node.inputs[1]), node.inputs[0]
    if w is None or w.dtype != np.float32 or number(node, "group", 1) != 1 or any(n != 1 for n in w.shape[2:]):
        return False
    if (
        source is None
        or source.shape is None
        or any(n != 1 for n in list(source.shape)[2:])
        or any(ints(node, "pads", []) or [])
    ):
        return False
    behind, seen = [u.node for u in node.outputs[0].uses()], set()
    while behind:
        reader = behind.pop()
        if reader.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            return False
        if reader not in seen:
            seen.add(reader)
            behind += [u.node for o in reader.outputs for u in o.uses()]
    return True


def _head_as_gemm(node: ir.Node, names: Names) -> None:
    """The same product as a Gemm, whose integer kernel gives float: the answer is not rounded to 8 bits."""
    import onnx_ir as ir

    graph, w = graph_of(node), array(node.inputs[1])
    assert w is not None
    flat = ir.node("Reshape", [node.inputs[0], constant(graph, np.array([0, -1], np.int64), names())], name=names())
    shape = [0, w.shape[0], *(1 for _ in w.shape[2:])]
    back = ir.node("Reshape", [node.outputs[0], constant(graph, np.array(shape, np.int64), names())], name=names())
    flat.outputs[0].name, back.outputs[0].name = names(), names()
    set_constant(node, 1, w.reshape(w.shape[:2]), names)
    node.attributes.clear()
    node.attributes.add(ir.AttrInt64("transB", 1))
    node.op_type = "Gemm"
    graph.insert_before(node, flat)
    node.replace_input_with(0, flat.outputs[0])
    graph.insert_after(node, back)
    take_over(node.outputs[0], back)


def take_over(value: ir.Value, node: ir.Node) -> None:
    """Let everything that read `value` read the output of `node`, which goes on reading `value`."""
    graph, output = graph_of(node), node.outputs[0]
    if value.is_graph_output():
        value.name, output.name = output.name, value.name
        output.type, output.shape = value.type, value.shape
        graph.outputs[graph.outputs.index(value)] = output
    for user, index in tuple(value.uses()):
        if user is not node:
            user.replace_input_with(index, output)
    value.shape = None


def _reshape(node: ir.Node, names: Names) -> None:
    shape = constant(graph_of(node), np.array([0, -1], np.int64), names())
    node.attributes.clear()
    node.resize_inputs(2)
    node.replace_input_with(1, shape)
    node.op_type = "Reshape"
