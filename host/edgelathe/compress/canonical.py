"""Forms that ONNX Runtime has integer kernels for, in place of equal ones that it has none for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.graph import (
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
            _plain_gemm(node, names)
        elif node.op_type == "ReduceMean":
            _global_mean(node, names)
        elif node.op_type == "Flatten" and number(node, "axis", 1) == 1:
            _reshape(node, names)


def _plain_gemm(node: ir.Node, names: Names) -> None:
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
    node.attributes.clear()
    node.resize_inputs(1)
    node.op_type = "GlobalAveragePool"
    if keeps:
        return
    graph, output = graph_of(node), node.outputs[0]
    flat = ir.node("Reshape", [output, constant(graph, np.array([0, -1], np.int64), names())], name=names())
    flat.outputs[0].name = names()
    graph.insert_after(node, flat)
    if output.is_graph_output():
        name, output.name = output.name, flat.outputs[0].name
        flat.outputs[0].name, flat.outputs[0].type, flat.outputs[0].shape = name, output.type, output.shape
    output.replace_all_uses_with(flat.outputs[0], replace_graph_outputs=True)
    flat.replace_input_with(0, output)


def _reshape(node: ir.Node, names: Names) -> None:
    shape = constant(graph_of(node), np.array([0, -1], np.int64), names())
    node.attributes.clear()
    node.resize_inputs(2)
    node.replace_input_with(1, shape)
    node.op_type = "Reshape"
