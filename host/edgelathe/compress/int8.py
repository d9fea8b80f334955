"""`int8`: static quantization in the form that ONNX Runtime fuses into integer kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgelathe.calibrate import scales
from edgelathe.compress import grids, opset, qdq, qplan, qweights
from edgelathe.compress.canonical import canonical
from edgelathe.compress.equalize import balance
from edgelathe.compress.fold import infer_shapes
from edgelathe.compress.graph import Names, array, bypass, layer, options_for, refuse_quantized, skips
from edgelathe.compress.types import LINEAR, Applied, Context, Note, StepSpec, option
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgelathe.compress.grids import Calibrated
    from edgelathe.compress.qplan import Plan
    from edgelathe.model.types import Model

_X86 = frozenset(("x86_64", "AMD64", "amd64", "i686"))


@dataclass(frozen=True)
class Options:
    """Options of `int8`."""

    scale: str = option(
        "auto", "how the range is chosen; auto: least error where it is read", choices=tuple(scales.RULES)
    )
    percentile: float = option(99.99, "share of values inside the range, for scale=percentile, in %", low=50, high=100)
    per_channel: bool = option(True, "one scale per output channel of the weights")
    correct: bool = option(True, "take the mean error of rounded weights out of the biases")
    equalize: str = option("auto", "rescale channels that differ first", choices=("auto", "always", "never"))
    signed: bool | None = option(None, "int8 activations, else uint8")
    reduce: bool | None = option(None, "7-bit weights, for CPUs that add two products in 16 bits")
    exact: bool | None = option(None, "ask ONNX Runtime for integer products without 16-bit sums (x86)")
    weights: int = option(8, "bits of the weights", choices=(8,))
    activations: int = option(8, "bits of the activations", choices=(8,))


def is_narrow_x86(hardware: Hardware) -> bool:
    """Whether its integer kernel adds two products in 16 bits: x86 without VNNI."""
    return hardware.machine in _X86 and "vnni" not in hardware.features


def resolve(options: Options, hardware: Hardware) -> Options:
    """Fill the open choices.

    Arm multiplies int8 by int8 exactly. x86 multiplies uint8 by int8: exactly with VNNI, without it two products are
    added in saturating 16 bits, which weights within -64..64 never reach (255 * 64 * 2 < 2**15). Where the machine is
    not known the signed form runs everywhere, with exact products asked for.
    """
    narrow = is_narrow_x86(hardware)
    signed = hardware.machine not in _X86 if options.signed is None else options.signed
    exact = options.exact
    reduce = narrow and not exact if options.reduce is None else options.reduce
    if exact is None:
        exact = not reduce and (narrow or hardware.machine is None)
    return replace(options, signed=signed, reduce=reduce, exact=exact)


def apply(model: Model, options: Options, context: Context) -> Applied:
    """Quantize every layer that ONNX Runtime has an integer kernel for; inputs and outputs of the model stay float.

    Raises UserError where there are no calibration samples, or activations are not finite.
    """
    if context.data is None or not len(context.data):
        raise UserError("int8", "needs calibration data", "give them with --data")
    options = resolve(options, Hardware(None, frozenset()))
    model, notes = opset.at_least(model)
    graph_model = onnx_model.to_ir(model)
    graph = graph_model.graph
    refuse_quantized(graph, model.name)
    infer_shapes(graph_model)
    names = Names(graph)
    canonical(graph, names)
    notes += balance(graph, names, options.equalize, context.overrides)
    plan = qplan.plan(graph, lambda node: not skips(node, context.overrides))
    skipped = tuple(Note(layer(n), False, why) for n, why in plan.why.items())
    if not plan.weights:
        return Applied(model, (*notes, *skipped, Note("model", False, "no layer that can be integer")))
    found = grids.calibrate(onnx_model.from_ir(graph_model, model.name), plan, options, context)
    notes += _write(graph, names, plan, found, options, context)
    qdq.finish(graph_model, names)
    config = {"session.x64quantprecision": "1"} if options.exact else {}
    return Applied(onnx_model.from_ir(graph_model, model.name), (*notes, *skipped), config)


def _write(
    graph: ir.Graph, names: Names, plan: Plan, found: Calibrated, options: Options, context: Context
) -> tuple[Note, ...]:
    """Write weights first, then values in graph order, then drop the clamps that the grids do."""
    writer, notes = qdq.Writer(graph, names), []
    for node in plan.weights:
        source = node.inputs[0]
        assert source is not None
        own = options_for(options, node, context.overrides) or options
        scale, mean = found.grid[source].scale, found.mean[str(source.name)] if own.correct else None
        stored = qweights.store(
            node, scale, mean, largest=64 if own.reduce else 127, per_channel=own.per_channel,
        )  # fmt: skip
        writer.weights(node, stored, scale)
        notes.append(Note(layer(node), True, f"int8, {'a scale per channel' if own.per_channel else 'one scale'}"))
    integer = {*plan.weights, *plan.others, *plan.clamps}
    for node in plan.others:
        for index, value in enumerate(node.inputs):
            data = array(value)
            if node.op_type in qplan.MATH and data is not None:
                writer.operand(node, index, bool(options.signed))
    order = [v for v in (*graph.inputs, *(o for n in tuple(graph) for o in n.outputs)) if v in found.grid]
    for value in order:
        producer = value.producer()
        writer.value(value, found.grid[value], None if producer in integer else integer)
    for node in plan.clamps:
        assert node.inputs[0] is not None
        bypass(node, node.inputs[0])
    return tuple(notes)


SPEC = StepSpec(
    "integer activations and weights, calibrated",
    Options,
    apply,
    needs=frozenset({"data"}),
    after=("fold",),
    resolve=resolve,
    ops=LINEAR | qplan.MATH,
    final=True,
)
