"""Small moves on an onnx_ir graph that every ONNX step is made of."""

from __future__ import annotations

import fnmatch
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from edgelathe.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

T = TypeVar("T")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


_QUANTIZED = frozenset(
    (
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "QLinearAdd",
        "QGemm", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulNBits", "DynamicQuantizeLSTM",
    )
)  # fmt: skip


def refuse_quantized(graph: ir.Graph, name: str) -> None:
    """Raises UserError for a model that is quantized already: rounding twice would lose twice."""
    found = next((n.op_type for n in graph.all_nodes() if n.op_type in _QUANTIZED), None)
    if found:
        raise UserError(name, f"is quantized already ({found})", "give the float model that it was made from")


_WEIGHTED = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"))


def refuse_not_finite(graph: ir.Graph, name: str) -> None:
    """Raises UserError for weights that hold NaN or infinite numbers: nothing that is made of them is right."""
    for node in graph.all_nodes():
        for value in node.inputs[1:] if node.op_type in _WEIGHTED else ():
            data = array(value)
            if data is not None and data.dtype.kind == "f" and not np.isfinite(data).all():
                what = f"'{value.name}' holds NaN or infinite numbers"  # type: ignore[union-attr]  # has data
                raise UserError(f"{name}: {layer(node)}", what, "mend the float model, or train it again")


class Names:
    """Fresh brief names for one graph: base-36 counters that no value or node of it has."""

    def __init__(self, graph: ir.Graph) -> None:
        self._taken: set[str | None] = {*graph.initializers, *(v.name for v in (*graph.inputs, *graph.outputs))}
        for node in graph.all_nodes():
            self._taken |= {node.name, *(v.name for v in node.outputs)}
        self._next = 0

    def __call__(self) -> str:
        """The next name."""
        while True:
            name, n = "", self._next
            while n or not name:
                n, digit = divmod(n, 36)
                name = _DIGITS[digit] + name
            self._next += 1
            if name not in self._taken:
                self._taken.add(name)
                return name


def layer(node: ir.Node) -> str:
    """The name that a user knows the node by: its own, else that of its first output."""
    return node.name or node.outputs[0].name or node.op_type


def options_for(options: T, node: ir.Node, overrides: Mapping[str, Mapping[str, Any]]) -> T | None:
    """The options that hold for one layer, None where the recipe says `skip`; of several globs the last one wins."""
    changes: dict[str, Any] = {}
    for pattern, values in overrides.items():
        if fnmatch.fnmatchcase(layer(node), pattern):
            changes |= values
    if changes.pop("skip", False):
        return None
    return replace(options, **changes) if changes else options  # type: ignore[type-var]  # T is an options dataclass


def skips(node: ir.Node, overrides: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the recipe leaves this layer as it is."""
    skip = [v["skip"] for p, v in overrides.items() if "skip" in v and fnmatch.fnmatchcase(layer(node), p)]
    return bool(skip and skip[-1])


def array(value: ir.Value | None) -> NDArray[Any] | None:
    """The constant behind a value; None where it is computed, or can be set by the caller of the model."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """The constant's number where it has exactly one."""
    a = array(value)
    return float(a.reshape(())) if a is not None and a.size == 1 else None


def constant(graph: ir.Graph, data: NDArray[Any] | ir.LazyTensor, name: str) -> ir.Value:
    """A new initializer."""
    import onnx_ir as ir

    tensor = data if isinstance(data, ir.LazyTensor) else ir.tensor(np.array(data, order="C"), name=name)
    tensor.name = name
    value = ir.Value(
        name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def set_constant(node: ir.Node, index: int, data: NDArray[Any], names: Names) -> ir.Value:
    """Make `data` the constant input `index` of the node; its name is kept where no other node reads the old one."""
    graph, old = graph_of(node), node.inputs[index] if index < len(node.inputs) else None
    name = None
    if old is not None and old.is_initializer() and len(old.uses()) == 1 and not old.is_graph_output():
        name = old.name
        del graph.initializers[str(name)]
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    value = constant(graph, data, name or names())
    node.replace_input_with(index, value)
    if name:
        drop(old)
    return value


def drop(value: ir.Value | None) -> None:
    """Let go of the data of a value that has left its graph: a list of onnx_ir's that inference fills keeps it."""
    if value is not None and not value.uses():
        value.const_value = None


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph that the node stands in."""
    import onnx_ir as ir

    assert isinstance(node.graph, ir.Graph)
    return node.graph


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads the value, where nothing else does and it is no output of the model."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    (use,) = uses
    return use.node


def bypass(node: ir.Node, source: ir.Value) -> bool:
    """Remove the node and let its readers read `source`; False where the model's own outputs forbid it."""
    output = node.outputs[0]
    if any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        return False
    if output.is_graph_output():
        if (
            source.is_graph_input()
            or source.is_initializer()
            or source.is_graph_output()
            or source.graph is not output.graph
        ):
            return False
        name, output.name = output.name, None
        source.name = name
        source.type, source.shape = output.type, output.shape
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    graph_of(node).remove(node, safe=True)
    return True


def ints(node: ir.Node, name: str, default: list[int] | None = None) -> list[int] | None:
    """An attribute of integers."""
    attr = node.attributes.get(name)
    return list(attr.as_ints()) if attr is not None else default


def number(node: ir.Node, name: str, default: Any) -> Any:
    """An attribute of one number or text."""
    attr = node.attributes.get(name)
    return attr.value if attr is not None else default


def rank(value: ir.Value | None) -> int | None:
    """Number of axes, where it is known."""
    return None if value is None or value.shape is None else len(value.shape)


def standard_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """The nodes of ONNX's own domain in the main graph, safe against removal while iterating."""
    return (n for n in tuple(graph) if n.domain in ("", "ai.onnx") and n.graph is graph)


def is_depthwise(node: ir.Node) -> bool:
    """Whether each output of a convolution reads one channel: few constant weights, each of which matters."""
    w = array(node.inputs[1]) if node.op_type == "Conv" else None
    return w is not None and w.shape[1] == 1 and number(node, "group", 1) > 1


def name_of(value: ir.Value | None) -> str:
    """The name of a value that is there."""
    assert value is not None
    return str(value.name)
