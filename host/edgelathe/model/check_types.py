"""That all tensors of an ONNX model have a type, and inputs room for a sample: runtimes name no tensor where not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelathe.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import onnx

MEND = "export the model again with a type for it, such as float32"

#: Attributes that are element types; an `output_dtype` of 0 stands for that of the scale (QuantizeLinear).
_TOLD = frozenset(("to", "dtype", "output_dtype", "output_datatype", "stash_type"))


def check(path: Path, graph: onnx.GraphProto, inner: Iterable[onnx.GraphProto]) -> None:
    """All constants, also of the graphs within nodes, and what the graph itself declares. Raises UserError.

    Graphs within nodes may declare tensors without a type. Element types are those of `TensorProto.DataType`
    (onnx.proto); 0 is UNDEFINED, which nothing may have.
    """
    known = _known()
    for role, name, elem_type in (*_declared(graph), *(t for g in (graph, *inner) for t in _constants(g))):
        if elem_type is None:
            raise UserError(path, f"{role} '{name}' has no type", MEND)
        if elem_type not in known:
            raise UserError(path, f"{role} '{name}' has element type {elem_type}, which is {_not(elem_type)}", MEND)


def check_nodes(path: Path, nodes: Iterable[onnx.NodeProto]) -> None:
    """The types that standard operators are told to make, as Cast. Raises UserError."""
    known = _known()
    for node in nodes:
        for a in node.attribute if node.domain in ("", "ai.onnx") else ():
            if a.name not in _TOLD or a.ref_attr_name or a.i in known or (not a.i and a.name == "output_dtype"):
                continue
            name = node.name or next(iter(node.output), "")
            what = f"node '{name}' ({node.op_type}) is told element type {a.i}, which is {_not(a.i)}"
            raise UserError(path, what, MEND)


def check_samples(path: Path, graph: onnx.GraphProto) -> None:
    """No input holds exactly 0 samples. Raises UserError."""
    constants = {t.name for t in graph.initializer}
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].HasField("dim_value") and dims[0].dim_value <= 0 and value.name not in constants:
            what = f"input '{value.name}' has {dims[0].dim_value} samples (length of axis 0)"
            raise UserError(path, what, "export the model with a batch of 1, or with an open batch axis")


def _known() -> set[int]:
    import onnx

    return set(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}


def _not(elem_type: int) -> str:
    return "none of ONNX" if elem_type else "UNDEFINED"


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, str, int]]:
    """(what it is, its name, its element type)."""
    yield from (("constant", t.name, t.data_type) for t in graph.initializer)
    yield from (("constant", t.values.name, t.values.data_type) for t in graph.sparse_initializer)


def _declared(graph: onnx.GraphProto) -> Iterator[tuple[str, str, int | None]]:
    """The same; None where there is no type at all, which inner tensors may do without."""
    for role, values in (("input", graph.input), ("output", graph.output)):
        yield from ((role, v.name, e) for v in values for e in _of(v.type))
    yield from (("tensor", v.name, e) for v in graph.value_info for e in _of(v.type) if e is not None)


def _of(value: onnx.TypeProto) -> Iterator[int | None]:
    """The element types within a type: those of a sequence's or an optional's tensors too."""
    kind = value.WhichOneof("value")
    if kind is None:
        yield None
    elif kind in ("tensor_type", "sparse_tensor_type"):
        yield getattr(value, kind).elem_type
    elif kind == "map_type":
        yield from _of(value.map_type.value_type)
    elif kind in ("sequence_type", "optional_type"):
        yield from _of(getattr(value, kind).elem_type)
