"""`fold`: what inference does not need is folded away; the function stays the same to float accuracy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.graph import fold_constants, fold_linear
from edgelathe.compress.graph.moves import Names, array, bypass, layer, number, skips, standard_nodes
from edgelathe.compress.types import Applied, Context, Note, StepSpec
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from edgelathe.model.types import Model


@dataclass(frozen=True)
class Options:
    """`fold` has no options."""


def apply(model: Model, _options: Options, context: Context) -> Applied:
    """Fold BatchNormalization, constants, padding and what does nothing; the layers that stay keep their names."""
    graph_model = onnx_model.to_ir(model)
    notes = fold(graph_model, lambda node: not skips(node, context.overrides))
    return Applied(
        onnx_model.from_ir(graph_model, model.name), tuple(notes) or (Note("model", False, "nothing to fold"),)
    )


def fold(model: ir.Model, allowed: Callable[[ir.Node], bool] = lambda _: True) -> list[Note]:
    """Fold in place; gives a note per node that went."""
    import onnx_ir.passes.common as passes

    graph, opsets = model.graph, dict(model.opset_imports)
    passes.RemoveInitializersFromInputsPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    infer_shapes(model)
    names, notes, changed = Names(graph), [], True
    while changed:
        changed = False
        for node in standard_nodes(graph):
            if node.graph is None or not allowed(node):
                continue
            note = _fold_node(node, opsets, names)
            if note:
                notes.append(note)
                changed = True
    passes.RemoveUnusedNodesPass()(model)
    _share_equal_constants(graph)
    _drop_remarks(model)
    return notes


def _fold_node(node: ir.Node, opsets: dict[str, int], names: Names) -> Note | None:
    name, source = layer(node), node.inputs[0] if node.inputs else None
    if source is not None and _does_nothing(node):
        return Note(name, True, "removed") if bypass(node, source) else None
    if what := fold_constants.evaluate(node, opsets, names):
        return Note(name, True, what)
    for rule in (fold_linear.batch_norm, fold_linear.affine):
        into = next((v for v in node.inputs if v is not None and v.producer() is not None), None)
        if into is not None and not _blocked(node, into) and (what := rule(node, names)):
            bypass(node, into)
            return Note(name, True, what)
    if source is not None and not node.outputs[0].is_graph_output() and (what := fold_linear.pad(node)):
        bypass(node, source)
        return Note(name, True, what)
    return None


def _blocked(node: ir.Node, into: ir.Value) -> bool:
    """Whether the node could not be bypassed afterwards; asked first, since weights are changed before."""
    return into.is_graph_output() or any(o.uses() for o in node.outputs[1:])


def _does_nothing(node: ir.Node) -> bool:
    if node.op_type == "Identity":
        return True
    if node.op_type == "Dropout":
        mode = node.inputs[2] if len(node.inputs) > 2 else None
        training = array(mode)
        return mode is None or (training is not None and not training.any())
    if node.op_type == "Cast":
        source = node.inputs[0]
        return source is not None and source.dtype is not None and int(source.dtype) == number(node, "to", 0)
    if node.op_type == "Transpose":
        perm = number(node, "perm", None)
        return perm is not None and list(perm) == sorted(perm)
    if node.op_type == "Pad":
        widths = array(node.inputs[1]) if len(node.inputs) > 1 else None
        return widths is not None and not widths.any()
    return node.op_type in ("Sum", "Concat") and len(node.inputs) == 1


def infer_shapes(model: ir.Model) -> None:
    """Shapes of inner values, which the rules look at; a model that defeats inference is folded without them."""
    import contextlib

    import onnx_ir.passes.common as passes

    with contextlib.suppress(Exception):
        passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


def _share_equal_constants(graph: ir.Graph) -> None:
    first: dict[tuple[object, ...], ir.Value] = {}
    for name, value in tuple(graph.initializers.items()):
        data = array(value)
        if data is None or data.dtype == np.object_ or value.is_graph_output():
            continue
        key = (value.dtype, data.shape, hashlib.sha256(np.ascontiguousarray(data).view(np.uint8).data).digest())
        if key in first:
            value.replace_all_uses_with(first[key])
            del graph.initializers[name]
        else:
            first[key] = value


def _drop_remarks(model: ir.Model) -> None:
    """Doc strings and exporter remarks on nodes go; the model's own metadata are the user's and stay."""
    graph = model.graph
    model.doc_string = graph.doc_string = None
    graph.metadata_props.clear()
    for node in graph.all_nodes():
        node.doc_string = None
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()


SPEC = StepSpec(
    "fold BatchNormalization, constants and what does nothing",
    Options,
    apply,
    ops=frozenset(("BatchNormalization", "Identity", "Dropout", "Pad")),
    large=True,
)
