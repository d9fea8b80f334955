"""`fp16`: weights stored as float16, or the whole graph computed in it where the hardware gains by that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress import half, opset
from edgelathe.compress.fold import infer_shapes
from edgelathe.compress.graph import Names, array, constant, layer, skips
from edgelathe.compress.half import LARGEST
from edgelathe.compress.qdq import finish
from edgelathe.compress.types import LINEAR, Applied, Context, Note, StepSpec, option
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgelathe.core.profile import Hardware
    from edgelathe.model.types import Model

_NODE = 60  # bytes of one more node in the file, about


@dataclass(frozen=True)
class Options:
    """Options of `fp16`."""

    compute: str | None = option(
        None, "float: only weights are stored so; half: all is computed so", choices=("float", "half")
    )


def resolve(options: Options, hardware: Hardware) -> Options:
    """Half where there are tensor cores. CPUs run float16 graphs by casting back and forth, up to four times slower."""
    half_wins = "tensor-cores" in hardware.features
    return replace(options, compute=options.compute or ("half" if half_wins else "float"))


def apply(model: Model, options: Options, context: Context) -> Applied:
    """Store weights as float16, or compute in it; inputs and outputs of the model keep their types."""
    model, notes = opset.at_least(model)
    ir_model = onnx_model.to_ir(model)
    names = Names(ir_model.graph)
    if options.compute == "half":
        infer_shapes(ir_model)
        notes += half.convert(ir_model, names, model, context)
    else:
        notes += _store(ir_model.graph, names, context)
    finish(ir_model, names)
    return Applied(onnx_model.from_ir(ir_model, model.name), notes or (Note("model", False, "no weights that pay"),))


def _store(graph: ir.Graph, names: Names, context: Context) -> tuple[Note, ...]:
    """Each float32 constant that is large enough becomes float16 behind a Cast, which is computed once, at load."""
    import onnx_ir as ir

    notes = []
    for value in tuple(graph.initializers.values()):
        data, uses = array(value), value.uses()
        if data is None or data.dtype != np.float32 or not uses or data.nbytes // 2 <= _NODE or value.is_graph_output():
            continue
        readers = list(dict.fromkeys(u.node for u in uses))
        if any(skips(n, context.overrides) for n in readers):
            notes.append(Note(layer(readers[0]), False, "skipped by the recipe"))
            continue
        if not np.isfinite(data).all() or np.abs(data).max() > LARGEST:
            notes.append(Note(layer(readers[0]), False, f"'{value.name}' has values beyond float16's {LARGEST:g}"))
            continue
        name = str(value.name)
        del graph.initializers[name]
        stored = constant(graph, data.astype(np.float16), name)
        cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT}, name=names())
        cast.outputs[0].name = names()
        graph.insert_before(graph[0], cast)
        value.replace_all_uses_with(cast.outputs[0])
        notes.append(Note(layer(readers[0]), True, f"'{name}' stored as float16"))
    return tuple(notes)


SPEC = StepSpec("weights in float16", Options, apply, after=("fold",), resolve=resolve, ops=LINEAR, final=True)
