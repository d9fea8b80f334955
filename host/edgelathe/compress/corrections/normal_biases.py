"""Biases that make up for rounded weights, from BatchNormalization statistics alone: b - (W' - W) E[x]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.corrections.input_factors import input_factors
from edgelathe.compress.corrections.normal_means import mean_of
from edgelathe.compress.forward import partial
from edgelathe.compress.graph import moves as g
from edgelathe.compress.graph.fold import fold, infer_shapes
from edgelathe.compress.graph.moves import name_of
from edgelathe.compress.types import Note
from edgelathe.compress.weights import qweights
from edgelathe.core.errors import UserError
from edgelathe.model import cut_onnx
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.corrections.slots import Array
    from edgelathe.compress.weights.problems import Pair
    from edgelathe.model.types import Model


def normal_biases(reference: Model, work: ir.Model, pairs: Sequence[Pair]) -> tuple[dict[ir.Node, Array], list[Note]]:
    """Biases [channels] by node of `work`, and a note for each layer that there is none for.

    Args:
        reference: the model as it was before BatchNormalization was folded.
        work: the compressed graph, whose weights are read.
        pairs: nodes of it and their float twins, folded.

    Raises UserError where no layer reads what a BatchNormalization tells of.
    """
    import onnx_ir.passes.common as passes

    whole = onnx_model.to_ir(reference)
    passes.RemoveInitializersFromInputsPass()(whole)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(whole)
    infer_shapes(whole)
    folded = onnx_model.to_ir(reference)
    fold(folded)
    origin, plain = ({g.layer(n): n for n in m.graph} for m in (whole, folded))
    real = _weights(work, [p.node for p in pairs])
    out: dict[ir.Node, Array] = {}
    notes = []
    for pair in pairs:
        name = g.layer(pair.twin)
        found = _bias(pair.twin, real.get(pair.node), origin.get(name), plain.get(name))
        if isinstance(found, str):
            notes.append(Note(name, False, found))
        else:
            out[pair.node] = found
    if not out:
        what = "no BatchNormalization tells the mean of what any layer reads"
        raise UserError(f"{reference.name}: bias-correct: mode", what, "use mode=empirical")
    return out, notes


def _bias(twin: ir.Node, real: NDArray[Any] | None, origin: ir.Node | None, plain: ir.Node | None) -> Array | str:
    """The bias of one layer; in words why there is none."""
    w = g.array(twin.inputs[1])
    if w is None or real is None or twin.op_type == "ConvTranspose" or (twin.op_type != "Conv" and w.ndim != 2):
        return "its weights cannot be compared"
    mean = mean_of(origin.inputs[0]) if origin is not None else None
    if mean is None or mean.size != _inputs(twin, w):
        return "no BatchNormalization tells the mean of its input"
    factors = input_factors(plain, twin) if plain is not None else None
    if factors is None:
        return "its channels were rescaled, and it does not tell by how much: use mode=empirical"
    given = g.array(twin.inputs[2]) if len(twin.inputs) > 2 else None
    bias = np.zeros(1) if given is None else given.reshape(-1).astype(np.float64)
    return np.asarray(bias - qweights.mean_shift(twin, real.astype(np.float64) - w, mean / factors), np.float64)


def _inputs(twin: ir.Node, w: NDArray[Any]) -> int:
    """How many channels the layer reads."""
    if twin.op_type == "Conv":
        return int(w.shape[1] * g.number(twin, "group", 1))
    return int(w.shape[1 - qweights.channel_axis(twin)])


def _weights(model: ir.Model, nodes: Sequence[ir.Node]) -> dict[ir.Node, NDArray[Any]]:
    """The weights of nodes as real numbers, whatever their form; those that samples decide are left out."""
    out = {n: w for n in nodes if (w := g.array(n.inputs[1])) is not None and w.dtype.kind == "f"}
    rest = [n for n in nodes if n not in out and not _hangs_on_input(n.inputs[1])]
    if rest:
        names = [name_of(n.inputs[1]) for n in rest]
        unique = list(dict.fromkeys(names))
        part = cut_onnx.upto(onnx_model.to_proto(onnx_model.from_ir(model, "weights")), unique)
        found = dict(zip(unique, partial.session(partial.serialized(part), "weights")({}), strict=True))
        out |= {n: found[name] for n, name in zip(rest, names, strict=True)}
    return out


def _hangs_on_input(value: ir.Value | None) -> bool:
    return any(v.is_graph_input() for v in _upstream(value))


def _upstream(value: ir.Value | None) -> Iterator[ir.Value]:
    todo, seen = [value], set[Any]()
    while todo:
        at = todo.pop()
        if at is None or at in seen:
            continue
        seen.add(at)
        yield at
        maker = at.producer()
        todo += list(maker.inputs) if maker is not None else []
