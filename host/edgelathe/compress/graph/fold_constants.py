"""What does not depend on the input is computed once, here, where that costs no bytes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.graph.moves import Names, array, constant, graph_of, number

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

# What differs from call to call, or is kept as it is on purpose.
_KEEP = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout")
)
_SPARE = 128  # bytes that a node and its names take in the file, about


def evaluate(node: ir.Node, opsets: dict[str, int], names: Names) -> str | None:
    """Replace a node whose inputs are all constant by its results, unless the file would grow by that."""
    values = shape_of(node) or _computed(node, opsets)
    if values is None:
        return None
    graph, freed = graph_of(node), 0
    for value in {id(v): v for v in node.inputs if v is not None}.values():
        data = array(value)
        freed += data.nbytes if data is not None and {u.node for u in value.uses()} == {node} else 0
    if sum(v.nbytes for v in values) > freed + _SPARE:
        return None
    for output, data in zip(node.outputs, values, strict=True):
        output.replace_all_uses_with(constant(graph, data, names()))
    graph.remove(node, safe=True)
    return "computed"


def shape_of(node: ir.Node) -> list[NDArray[np.int64]] | None:
    """The result of `Shape` where it is known without data."""
    if (
        node.op_type != "Shape"
        or node.inputs[0] is None
        or node.inputs[0].shape is None
        or node.outputs[0].is_graph_output()
    ):
        return None
    dims = list(node.inputs[0].shape)[number(node, "start", 0) : number(node, "end", None)]
    if not all(isinstance(d, int) for d in dims):
        return None
    return [np.array(dims, np.int64)]


def _computed(node: ir.Node, opsets: dict[str, int]) -> list[NDArray[Any]] | None:
    constants = {v.name: array(v) for v in node.inputs if v is not None}
    if node.domain or node.op_type in _KEEP or any(a is None for a in constants.values()):
        return None
    if any(o.is_graph_output() or not o.name for o in node.outputs) or any(
        a.type.name.startswith("GRAPH") for a in node.attributes.values()
    ):
        return None
    import onnx
    import onnx_ir
    import onnxruntime as ort

    proto = onnx_ir.serde.serialize_node(node)
    graph = onnx.helper.make_graph(
        [proto], "g", [], [onnx.helper.make_empty_tensor_value_info(o.name) for o in node.outputs],
        [onnx.numpy_helper.from_array(a, k) for k, a in constants.items()],
    )  # fmt: skip
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid(d, v) for d, v in opsets.items()], ir_version=8
    )
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    # A node that the host's runtime cannot run alone stays where it is: folding is never needed to be right.
    with contextlib.suppress(Exception):
        out = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {})
        return out if all(isinstance(v, np.ndarray) for v in out) else None
    return None
