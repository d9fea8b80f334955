"""How many rows the tables have that a model's inputs pick from: embeddings, looked up by number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgelathe.model import onnx as onnx_model
from edgelathe.model import tflite

if TYPE_CHECKING:
    import onnx

    from edgelathe.model.types import Model

Shape = Sequence[int | None]

#: Operators that move, cast or leave out the values of their first input, and those that do so with all of them.
_MOVES = frozenset((
    "Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Slice", "Expand", "Tile", "Gather",
    "CAST", "RESHAPE", "EXPAND_DIMS", "SQUEEZE", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "TILE", "GATHER",
))  # fmt: skip
_JOINS = frozenset(("Concat", "Split", "CONCATENATION", "PACK", "UNPACK", "SPLIT"))
_SAME_SHAPE = frozenset(("Cast", "Identity", "DequantizeLinear", "CAST", "DEQUANTIZE"))

#: Operators that look up: their inputs (table, numbers).
_LOOKUPS = {
    "Gather": ((0, 1),),
    "GatherBlockQuantized": ((0, 1),),
    "EmbedLayerNormalization": ((2, 0), (4, 1), (3, 8)),
    "GATHER": ((0, 1),),
    "EMBEDDING_LOOKUP": ((1, 0),),
}


@dataclass(frozen=True)
class _Node:
    """An operator of either format; `axis` of the table that it looks up in."""

    op: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    axis: int = 0


def rows(model: Model) -> dict[str, int]:
    """The rows of the smallest table that an input picks from, by the input's name, as far as the graph tells.

    Numbers are followed from an input to the table as long as nothing computes with them, in the main graph.
    """
    names = [i.name for i in model.signature.inputs]
    if model.format == "onnx":
        graph = onnx_model.skeleton(model).graph
        return _smallest(names, _onnx(graph), _shapes(graph))
    main = tflite.parse(model.data).main
    # Tensors are told apart by number there; names may repeat.
    shapes = {str(i): t.shape for i, t in enumerate(main.tensors)}
    found = _smallest([str(i) for i in main.inputs], _tflite(main), shapes)
    return {name: found[str(i)] for name, i in zip(names, main.inputs, strict=True) if str(i) in found}


def _smallest(inputs: Iterable[str], nodes: Iterable[_Node], shapes: Mapping[str, Shape]) -> dict[str, int]:
    """`rows` of a graph whose nodes are in order. `shapes`: of the tensors that have one without being computed."""
    sources = {name: {name} for name in inputs}
    known, found = dict(shapes), dict[str, int]()
    for node in nodes:
        for table, numbers in _LOOKUPS.get(node.op, ()):
            if max(table, numbers) >= len(node.inputs):
                continue
            shape = known.get(node.inputs[table], ())
            count = shape[node.axis] if -len(shape) <= node.axis < len(shape) else None
            for name in sources.get(node.inputs[numbers], ()) if count else ():
                found[name] = min(found.get(name, count or 0), count or 0)
        moved = node.inputs[:1] if node.op in _MOVES else node.inputs if node.op in _JOINS else ()
        if of := {s for name in moved for s in sources.get(name, ())}:
            sources.update((name, of) for name in node.outputs)
        if node.op in _SAME_SHAPE and node.inputs[0] in known:
            known.setdefault(node.outputs[0], known[node.inputs[0]])
    return found


def _onnx(graph: onnx.GraphProto) -> Iterator[_Node]:
    for node in graph.node:
        axis = next((a.i for a in node.attribute if a.name in ("axis", "gather_axis")), 0)
        yield _Node(node.op_type, node.input, node.output, axis)


def _shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Of constants, as initializers and as nodes."""
    constants = {t.name: t for t in graph.initializer}
    constants |= {
        n.output[0]: a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"
    }
    return {name: tuple(t.dims) for name, t in constants.items()}


def _tflite(graph: tflite.Subgraph) -> Iterator[_Node]:
    for op in graph.operators:
        axis = op.options.number(0, "i") if op.op == "GATHER" and op.options else 0  # GatherOptions.axis
        yield _Node(op.op, [str(i) for i in op.inputs], [str(i) for i in op.outputs], axis)
