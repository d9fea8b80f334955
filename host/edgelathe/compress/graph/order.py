"""The form that every step takes for granted: nodes in order, each with a name of its own or none."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgelathe.model.types import Model


def ordered(model: Model) -> Model:
    """An ONNX model with each value made before it is read, as ONNX's IR specification asks for; itself where it is so.

    Raises UserError where two nodes share a name, by which layers are told apart, or nodes wait for one another.
    """
    if model.format != "onnx" or model.external is not None:
        return model
    work = onnx_model.to_ir(model)
    names = Counter(n.name for n in work.graph if n.name)
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None:
        what = f"{names[twice]} nodes are called '{twice}', and layers are told apart by name"
        raise UserError(model.name, what, "give each node a name of its own, or none")
    if _is_ordered(work.graph):
        return model
    try:
        work.graph.sort()
    except ValueError:
        raise UserError(model.name, "some of its nodes wait for one another", "export it again") from None
    return onnx_model.from_ir(work, model.name)


def _is_ordered(graph: ir.Graph) -> bool:
    """Whether no node of the main graph reads what a later one makes."""
    place = {node: i for i, node in enumerate(graph)}
    makers = ((i, value.producer()) for node, i in place.items() for value in node.inputs if value is not None)
    return all(maker is None or place.get(maker, -1) < i for i, maker in makers)
