"""`bf16`: weights stored as bfloat16, float32's range in half the bytes; the model computes in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgelathe.compress.graph import moves as g
from edgelathe.compress.graph import opset
from edgelathe.compress.half import narrow
from edgelathe.compress.integer.qdq import finish
from edgelathe.compress.types import LINEAR, Applied, Context, Note, StepSpec
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    from edgelathe.model.types import Model


@dataclass(frozen=True)
class Options:
    """`bf16` has no options."""


def apply(model: Model, _options: Options, context: Context) -> Applied:
    """Store weights as bfloat16, 8 significant bits and no overflow; the runtime makes them float32 once, at load.

    Raises UserError for a model that is quantized already or whose weights are not finite.
    """
    model, notes = opset.at_least(model)  # the first in which Cast knows bfloat16
    work = onnx_model.to_ir(model)
    g.refuse_quantized(work.graph, model.name)
    g.refuse_not_finite(work.graph, model.name)
    names = g.Names(work.graph)
    notes += tuple(narrow.store(work.graph, names, narrow.BFLOAT16, context.overrides))
    finish(work, names)
    return Applied(onnx_model.from_ir(work, model.name), notes or (Note("model", False, "no weights that pay"),))


SPEC = StepSpec("weights in bfloat16", Options, apply, after=("fold",), ops=LINEAR, final=True, large=True)
