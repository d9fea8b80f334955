"""An ONNX graph as the simulator reads it: nodes with plain attributes, constants as values on their grids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.errors import UserError
from edgelathe.model.fixed.types import Grid, Value
from edgelathe.model.onnx import refuse_sparse

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

STORE, LOAD = "QuantizeLinear", "DequantizeLinear"
_BITS = {
    "INT2": (2, True), "UINT2": (2, False), "INT4": (4, True), "UINT4": (4, False), "INT8": (8, True),
    "UINT8": (8, False), "INT16": (16, True), "UINT16": (16, False), "INT32": (32, True),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Node:
    """One operation.

    Attributes:
        name: as `inspect` and recipes call it: its own, else that of its first output.
        op: its type; `domain` "" is ONNX's own.
        version: of the domain's operators.
        inputs: tensor names, "" for one left out.
        outputs: tensor names, "" for one left out.
        attributes: plain Python and numpy values, tensors as arrays.
        proto: as the file has it, for operators that are computed by the standard's reference.
    """

    name: str
    op: str
    domain: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    proto: onnx.NodeProto

    def get(self, name: str, default: Any) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)


@dataclass(eq=False)
class Graph:
    """A model's main graph.

    Attributes:
        nodes: in order.
        constants: tensors that the file holds, by name.
        inputs: names of the model's inputs, initializers left out; `outputs`: of its outputs.
        originals: what constants were before they were made integer, by name, for float without rounding.
        kinds: bits and signedness of each constant that is a small integer, by name (numpy has no 4-bit types).
    """

    nodes: list[Node]
    constants: dict[str, Value]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kinds: dict[str, tuple[int, bool]] = field(default_factory=dict)
    originals: dict[str, NDArray[Any]] = field(default_factory=dict)

    def readers(self) -> dict[str, list[Node]]:
        """Who reads each tensor; nodes with branches read what these take from outside, too."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in (*node.inputs, *captured(node.proto)):
                if name:
                    found.setdefault(name, []).append(node)
        return found


def read(proto: onnx.ModelProto, where: str) -> Graph:
    """The main graph, functions put in place.

    Raises UserError for opsets too old to have today's meaning, and for weights in sparse form.
    """
    import onnx

    refuse_sparse(proto, where)

    if proto.functions:
        import onnx.inliner

        proto = onnx.inliner.inline_local_functions(proto)
    versions = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in proto.opset_import}
    if versions.get("", 1) < 7:
        raise UserError(
            where, f"opset {versions.get('', 1)} is too old to be simulated", "convert it to opset 11 or later"
        )
    graph = Graph(
        [],
        {},
        tuple(i.name for i in proto.graph.input if i.name not in {t.name for t in proto.graph.initializer}),
        tuple(o.name for o in proto.graph.output),
    )
    for tensor in proto.graph.initializer:
        _hold(graph, tensor.name, tensor)
    for position, node in enumerate(proto.graph.node):
        domain = "" if node.domain == "ai.onnx" else node.domain
        attributes = {a.name: _attribute(a) for a in node.attribute}
        if node.op_type == "Constant" and not domain:
            _hold_constant(graph, node, attributes)
            continue
        name = node.name or next((o for o in node.output if o), f"{node.op_type}_{position}")
        version = versions.get(domain, 1)
        graph.nodes.append(
            Node(name, node.op_type, domain, version, tuple(node.input), tuple(node.output), attributes, node)
        )
    return graph


def captured(node: onnx.NodeProto) -> set[str]:
    """Names that the branches of a node read from outside of them, and some of their own."""
    out: set[str] = set()
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for inner in graph.node:
                out |= set(inner.input) | captured(inner)
            out |= {o.name for o in graph.output}
    return out


def array(tensor: onnx.TensorProto) -> NDArray[Any]:
    """The numbers in a type that numpy computes with: 2- and 4-bit integers in 8 bits, bfloat16 in float32."""
    import onnx

    data = np.asarray(onnx.numpy_helper.to_array(tensor))
    kind = onnx.TensorProto.DataType.Name(tensor.data_type)
    if kind in _BITS and _BITS[kind][0] < 8:
        return data.astype(np.int8 if _BITS[kind][1] else np.uint8)
    return data.astype(np.float32) if kind.startswith(("BFLOAT", "FLOAT8", "FLOAT4", "FLOAT6")) else data


def grid(node: Node, scale: NDArray[Any], zero: NDArray[Any] | None, kind: tuple[int, bool], rank: int | None) -> Grid:
    """The grid of a QuantizeLinear or DequantizeLinear, as the standard defines it.

    `scale` and `zero` are its inputs; `kind` are bits and signedness of its integers; `rank` of the data: an axis may
    count from behind. One scale is one for all, on whatever axis.
    """
    zeros = np.zeros(scale.shape, np.int64) if zero is None else np.broadcast_to(zero.astype(np.int64), scale.shape)
    block = int(node.get("block_size", 0))
    scales = scale.astype(np.float64)
    if scales.size == 1 and not block:
        return Grid(scales.reshape(1), zeros.reshape(1), *kind)
    axis = int(node.get("axis", 1))
    if axis < 0 and rank is not None:
        axis += rank
    return Grid(scales, zeros, *kind, axis=axis, block=block)


def kind_of(graph: Graph, node: Node, data: NDArray[Any] | None = None) -> tuple[int, bool]:
    """Bits and signedness of the integers of a QuantizeLinear or DequantizeLinear."""
    import onnx

    names = (node.inputs[2:3], node.inputs[:1])[node.op == LOAD]
    for name in (*names, *node.inputs[2:3]):
        if name in graph.kinds:
            return graph.kinds[name]
    wanted = node.get("output_dtype", 0) if node.op == STORE else 0
    if wanted:
        return _BITS[onnx.TensorProto.DataType.Name(wanted)]
    if data is not None and data.dtype.kind in "iu":
        return data.dtype.itemsize * 8, data.dtype.kind == "i"
    return 8, False


def _hold(graph: Graph, name: str, tensor: onnx.TensorProto) -> None:
    import onnx

    kind = onnx.TensorProto.DataType.Name(tensor.data_type)
    if kind in _BITS:
        graph.kinds[name] = _BITS[kind]
    graph.constants[name] = Value(array(tensor))


def _hold_constant(graph: Graph, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
    for attribute in node.attribute:
        if attribute.name == "value":
            _hold(graph, node.output[0], attribute.t)
            return
    (name, value) = next(iter(attributes.items()))
    dtype = np.float32 if "float" in name else np.int64 if "int" in name else np.object_
    graph.constants[node.output[0]] = Value(np.asarray(value, dtype))


def _attribute(attribute: onnx.AttributeProto) -> Any:
    import onnx

    kinds = onnx.AttributeProto
    if attribute.type == kinds.TENSOR:
        return array(attribute.t)
    if attribute.type in (kinds.GRAPH, kinds.GRAPHS, kinds.SPARSE_TENSOR, kinds.TYPE_PROTO, kinds.TYPE_PROTOS):
        return attribute
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value] if attribute.type in (
        kinds.FLOATS, kinds.INTS, kinds.STRINGS
    ) else value  # fmt: skip
