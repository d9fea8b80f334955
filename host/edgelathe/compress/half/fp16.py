"""`fp16`: weights stored as float16, or the whole graph computed in it where the hardware gains by that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgelathe.compress.graph import moves as g
from edgelathe.compress.graph import opset
from edgelathe.compress.graph.fold import infer_shapes
from edgelathe.compress.half import narrow, tensor_cores
from edgelathe.compress.half import whole as half
from edgelathe.compress.integer.qdq import finish
from edgelathe.compress.types import LINEAR, Applied, Context, Note, StepSpec, option
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir

    from edgelathe.core.profile import Hardware
    from edgelathe.model.types import Model

# By what computes float16: why half precision is no gain there (github.com/microsoft/onnxruntime/issues/25824).
_SLOW = {
    "vector": "likely slower than float: ONNX Runtime has few float16 kernels for CPUs and casts around the others",
    "none": "slower than float: the device has no float16 arithmetic, every operator is cast to float32 and back",
}


@dataclass(frozen=True)
class Options:
    """Options of `fp16`."""

    compute: str | None = option(
        None, "float: only weights are stored so; half: all is computed so", choices=("float", "half")
    )
    arithmetic: str | None = option(
        None, "what computes float16 on the device", choices=("tensor-cores", "gpu", "vector", "none")
    )


def resolve(options: Options, hardware: Hardware) -> Options:
    """Half where a GPU computes it. CPUs run float16 graphs by casting back and forth, up to four times slower."""
    known = {"tensor-cores": "tensor-cores", "gpu-fp16": "gpu", "fp16": "vector"}
    found = next((v for k, v in known.items() if k in hardware.features), "none")
    arithmetic = options.arithmetic or (found if hardware.machine or hardware.features else None)
    half_wins = arithmetic in ("tensor-cores", "gpu")
    return replace(options, compute=options.compute or ("half" if half_wins else "float"), arithmetic=arithmetic)


def apply(model: Model, options: Options, context: Context) -> Applied:
    """Store weights as float16, or compute in it; inputs and outputs of the model keep their types.

    Raises UserError for a model that is quantized already or whose weights are not finite.
    """
    model, notes = opset.at_least(model)
    ir_model = onnx_model.to_ir(model)
    g.refuse_quantized(ir_model.graph, model.name)
    g.refuse_not_finite(ir_model.graph, model.name)
    names = g.Names(ir_model.graph)
    if options.compute == "half":
        infer_shapes(ir_model)
        nodes = tuple(ir_model.graph)
        found = half.convert(ir_model, names, model, context)
        notes += tuple(_aligned(found, nodes)) if options.arithmetic == "tensor-cores" else found
        notes += tuple(Note("model", False, _SLOW[a]) for a in (options.arithmetic,) if a in _SLOW)
    else:
        notes += tuple(narrow.store(ir_model.graph, names, narrow.FLOAT16, context.overrides))
    finish(ir_model, names)
    return Applied(onnx_model.from_ir(ir_model, model.name), notes or (Note("model", False, "no weights that pay"),))


def _aligned(notes: Sequence[Note], nodes: Sequence[ir.Node]) -> Iterator[Note]:
    """The notes, with why tensor cores do not fit a layer, and how many they fit."""
    why = {g.layer(n): tensor_cores.obstacle(n) for n in nodes if tensor_cores.widths(n)}
    done = {n.layer for n in notes if n.done} & set(why)
    for note in notes:
        extra = why.get(note.layer) if note.done else None
        yield replace(note, what=f"{note.what}; {extra}") if extra else note
    if done:
        fit = sum(not why[name] for name in done)
        yield Note("model", fit == len(done), f"tensor cores fit {fit} of {len(done)} layers with weights")


SPEC = StepSpec(
    "weights in float16", Options, apply, after=("fold",), resolve=resolve, ops=LINEAR, final=True, large=True
)
