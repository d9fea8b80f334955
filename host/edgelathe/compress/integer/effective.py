"""What of a value counts where it is added to another and the sum is clamped.

relu(a + b) is relu(max(a, -b) + b): of `a` only max(a, -b) is seen by what follows, and a range that holds that
loses nothing by clipping the rest. In residual networks the branch that ends in such a sum reaches far below zero and
most of it is cut off: its error at the output of the sum, not its own, decides its range. For any clamp, what is seen
of `a` is clamp(a + b) - b, which is computed beside the model while it runs over the samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgelathe.compress.integer.qplan import Plan
    from edgelathe.model.types import Model

_SUFFIX = ":seen"  # of the names of the added values


@dataclass(frozen=True)
class Part:
    """Names of what is seen of a value, and of the clamped sum."""

    seen: str
    clamped: str


def beside(model: Model, plan: Plan) -> tuple[Model, dict[str, Part]]:
    """The model with what is seen of each such value computed too, and the names of both by the value's name."""
    import onnx

    found = {str(v.name): pair for v in dict.fromkeys(plan.grid.values()) if (pair := _clamped_sum(v, plan))}
    if not found:
        return model, {}
    proto = onnx_model.to_proto(model)
    names = {}
    for name, (other, clamped) in found.items():
        names[name] = Part(name + _SUFFIX, clamped)
        proto.graph.node.append(onnx.helper.make_node("Sub", [clamped, other], [names[name].seen]))
    return onnx_model.from_proto(proto, model.name), names


def _clamped_sum(value: ir.Value, plan: Plan) -> tuple[str, str] | None:
    """Names of the other term and of the clamped sum, where that sum is all that reads the value."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    (use,) = uses
    total = use.node.outputs[0]
    if use.node.op_type != "Add" or use.node not in plan.others or len(total.uses()) != 1 or total.is_graph_output():
        return None
    (behind,) = total.uses()
    other = use.node.inputs[1 - use.idx]
    if behind.node not in plan.clamps or other is None or other is value:
        return None
    return str(other.name), str(behind.node.outputs[0].name)
