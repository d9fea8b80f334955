"""`int8`: static quantization in the form that ONNX Runtime fuses into integer kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgelathe.calibrate import scales
from edgelathe.compress.graph import opset
from edgelathe.compress.graph.canonical import canonical
from edgelathe.compress.graph.equalize import balance
from edgelathe.compress.graph.fold import infer_shapes
from edgelathe.compress.graph.moves import (
    Names,
    array,
    bypass,
    is_depthwise,
    layer,
    options_for,
    refuse_quantized,
    skips,
)
from edgelathe.compress.integer import grids, placement, qdq, qplan
from edgelathe.compress.integer.rescale import rescale
from edgelathe.compress.types import LINEAR, Applied, Context, Note, StepSpec, option
from edgelathe.compress.weights import qweights, rounding, saturation
from edgelathe.compress.weights.levels import NORMAL_BITS, SPACINGS, Levels
from edgelathe.core.errors import UserError
from edgelathe.core.memory import give_back
from edgelathe.core.profile import Hardware
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Set

    import onnx_ir as ir

    from edgelathe.compress.integer.grids import Calibrated
    from edgelathe.compress.integer.qplan import Plan
    from edgelathe.compress.integer.tied import Tied
    from edgelathe.model.types import Model

_X86 = frozenset(("x86_64", "AMD64", "amd64", "i686"))
_FULL_BITS = 8  # of a weight: those lose next to nothing
_TENSOR_CORE = 16  # rows and columns of int8 that it multiplies at once


@dataclass(frozen=True)
class Options:
    """Options of `int8`."""

    scale: str = option(
        "auto", "how the range is chosen; auto: least error where it is read", choices=tuple(scales.RULES)
    )
    percentile: float = option(99.99, "share of values inside the range, for scale=percentile, in %", low=50, high=100)
    per_channel: bool = option(True, "one scale per output channel of the weights")
    correct: bool = option(True, "take the mean error of rounded weights out of the biases")
    equalize: str = option(
        "auto",
        "rescale channels that differ, and before dense layers of few bits; noise: all, for the least rounding noise",
        choices=("auto", "noise", "always", "never"),
    )
    signed: bool | None = option(None, "int8 activations, else uint8")
    symmetric: bool | None = option(None, "int8 activations without zero points, biases in float: as TensorRT wants it")
    reduce: bool | str | None = option(
        None,
        "less range for weights, for CPUs that add two products in 16 bits; auto: where they could saturate",
        choices=(True, False, "auto"),
    )
    exact: bool | None = option(None, "ask ONNX Runtime for integer products without 16-bit sums (x86)")
    weights: int = option(8, "bits of the weights", choices=(8, 7, 6, 5, 4, 3, 2))
    depthwise: int = option(8, "bits of the weights of depthwise layers, at least", choices=(8, 7, 6, 5, 4, 3, 2))
    rounding: str = option(
        "auto", "how weights are rounded; auto: second-order below 8 bits", choices=("auto", "nearest", "second-order")
    )
    levels: str = option(
        "auto",
        "spacing of 2 to 5 bits of the weights, second-order; normal: denser near zero; auto: as loses less",
        choices=SPACINGS,
    )
    activations: int = option(8, "bits of the activations", choices=(8,))
    in_float: str | None = option(
        None,
        "patterns that stay in float, as first/add; measured: as the device is faster "
        f"(of {placement.NONE}, {placement.MEASURED}, {', '.join(placement.PATTERNS)})",
    )
    narrowest: int | None = option(None, "products of fewer inputs or outputs stay float (Gemm, MatMul)", low=1)


def is_narrow_x86(hardware: Hardware) -> bool:
    """Whether its integer kernel adds two products in 16 bits: x86 without VNNI."""
    return hardware.machine in _X86 and "vnni" not in hardware.features


def resolve(options: Options, hardware: Hardware) -> Options:
    """Fill the open choices.

    Arm multiplies int8 by int8 exactly. x86 multiplies uint8 by int8: exactly with VNNI, without it two products are
    added in saturating 16 bits: a channel gives up as much range as its own worst pair asks for. Where the machine is
    not known the signed form runs everywhere, with exact products asked for. Tensor cores multiply blocks of 16;
    TensorRT takes neither zero points nor integer biases.

    Raises UserError for `in_float` that names no pattern, or is still to be measured, and `levels` without few bits.
    """
    if options.levels == "normal" and not (options.weights in NORMAL_BITS and _is_learned(options)):
        raise UserError("int8: levels", "normal levels are for 2 to 5 bits, rounded by second order", "say weights=4")
    narrow = is_narrow_x86(hardware)
    cores = "tensor-cores" in hardware.features
    symmetric = cores if options.symmetric is None else options.symmetric
    signed = options.signed
    if signed is None or symmetric:
        signed = symmetric or hardware.machine not in _X86
    exact = options.exact
    reduce = options.reduce
    if reduce is None:
        reduce = "auto" if narrow and not exact else False
    if exact is None:
        exact = not reduce and (narrow or hardware.machine is None)
    kept = placement.text(placement.parse(options.in_float or placement.NONE, "int8: in_float"))
    least = options.narrowest or (_TENSOR_CORE if cores else 1)
    return replace(
        options, signed=signed, symmetric=symmetric, reduce=reduce, exact=exact, in_float=kept, narrowest=least
    )  # fmt: skip


def apply(model: Model, options: Options, context: Context) -> Applied:
    """Quantize every layer that ONNX Runtime has an integer kernel for; inputs and outputs of the model stay float.

    Raises UserError where there are no calibration samples, or activations are not finite.
    """
    context.samples("int8")  # there have to be some
    options = resolve(options, Hardware(None, frozenset()))
    model, notes = opset.at_least(model)
    graph_model, name = onnx_model.to_ir(model), model.name
    graph = graph_model.graph
    refuse_quantized(graph, name)
    infer_shapes(graph_model)
    names = Names(graph)
    canonical(graph, names)
    notes += balance(graph, names, options.equalize, context.overrides)
    notes += _rescale(graph_model, name, names, options, context)
    refusal = Refusal(graph, options, context)
    plan = qplan.plan(graph, refusal)
    if not plan.weights:
        return _nothing(model, notes, plan)
    del model  # of the copies of its weights one is left: the graph takes them from the twin
    give_back()
    twin = onnx_model.from_ir(graph_model, name)
    onnx_model.rest_on(graph_model, twin)
    found = grids.calibrate(twin, plan, options, context)
    while found.never:
        refusal.never |= found.never
        plan = qplan.plan(graph, refusal)
        if not plan.weights:
            return _nothing(twin, notes, plan)
        found = grids.calibrate(twin, plan, options, context)
    notes += tuple(_constant(plan, found))
    notes += _write(graph_model, twin, names, plan, found, options, context)
    qdq.finish(graph_model, names)
    give_back()  # what the float weights took
    config = {"session.x64quantprecision": "1"} if options.exact else {}
    return Applied(onnx_model.from_ir(graph_model, name), (*notes, *_skipped(plan)), config, twin)


def _nothing(model: Model, notes: tuple[Note, ...], plan: Plan) -> Applied:
    return Applied(model, (*notes, *_skipped(plan), Note("model", False, "no layer that can be integer")))


def _skipped(plan: Plan) -> tuple[Note, ...]:
    return tuple(Note(layer(n), False, why) for n, why in plan.why.items())


def _rescale(model: ir.Model, name: str, names: Names, options: Options, context: Context) -> tuple[Note, ...]:
    """What activations and weights lose together, made least by a factor per channel.

    `auto` does so before dense layers of few bits, where it halves what is lost: a weight for each channel and output
    leaves them more unequal than a kernel's, batch normalization behind evens convolutions out, and pooling hides the
    noise of the value. Elsewhere nothing is gained but where channels differ much.
    """
    if options.equalize not in ("auto", "noise") or not options.per_channel:
        return ()
    assert context.data is not None

    def bits(node: ir.Node) -> int:
        return (options_for(options, node, context.overrides) or options).weights

    def wanted(of: Tied) -> bool:
        return options.equalize == "noise" or (of.is_dense and all(bits(n) < _FULL_BITS for n in of.readers))

    return rescale(model, name, names, context.data, lambda node: not skips(node, context.overrides), bits, wanted)


class Refusal:
    """Why a node may not become integer, "" where it may; `never`: names of values that no sample has."""

    def __init__(self, graph: ir.Graph, options: Options, context: Context) -> None:
        self._kept = placement.kept(graph, placement.parse(options.in_float or placement.NONE, "int8: in_float"))
        self._least, self._overrides = options.narrowest or 1, context.overrides
        self.never: frozenset[str] = frozenset()

    def __call__(self, node: ir.Node) -> str:
        """The reason, or ""."""
        if skips(node, self._overrides):
            return "skipped by the recipe"
        if node in self._kept:
            return self._kept[node]
        absent = next((v.name for v in (*node.inputs, *node.outputs) if v is not None and v.name in self.never), None)
        if absent is not None:
            return f"'{absent}' holds no value on any sample"
        size = qplan.product_size(node)
        if size is not None and min(size) < self._least:
            return f"a product of {size[0]} inputs and {size[1]} outputs is too narrow for the integer kernel"
        return ""


def _write(
    model: ir.Model, twin: Model, names: Names, plan: Plan, found: Calibrated, options: Options, context: Context
) -> tuple[Note, ...]:
    """Write integer weights and values, and drop the clamps that the grids do; `twin` is the model in float."""
    graph, writer = model.graph, qdq.Writer(model.graph, names, symmetric=bool(options.symmetric))
    own = {n: options_for(options, n, context.overrides) or options for n in plan.weights}
    bits = {n: _bits(n, own[n]) for n in plan.weights}
    sizes = {n: array(n.inputs[1]).size for n in plan.weights}  # type: ignore[union-attr]  # constant, by the plan
    learned = [n for n in plan.weights if _is_learned(own[n])]
    before = onnx_model.to_ir(twin) if learned else model  # a copy costs what the weights do
    if learned:
        infer_shapes(before)
    twins = dict(zip(graph, before.graph, strict=True))

    def job_of(node: ir.Node) -> rounding.Job:
        source = node.inputs[0]
        assert source is not None
        reduce, scale = _reduced(node, own[node]), found.grid[source].scale
        return rounding.Job(node, twins[node], bits[node], own[node].levels, reduce, scale, own[node].per_channel)

    jobs = [job_of(n) for n in learned]
    narrowed = {node: _write_nearest(writer, node, found, own[node]) for node in plan.weights if node not in learned}
    _write_values(graph, writer, plan, found, options)
    assert context.data is not None
    normal = set()
    for job, stored in rounding.walk(model, before, jobs, context.data, context.seed) if jobs else ():
        writer.weights(job.node, stored, job.input_scale)
        if stored.values is not None:
            normal.add(job.node)
    return (*_notes(plan, own, bits, narrowed, normal), *_average(sizes, bits))


def _is_learned(options: Options) -> bool:
    """Whether the layer is rounded by second order: what that gains at 8 bits is not worth its time."""
    return options.rounding == "second-order" or (options.rounding == "auto" and options.weights < 8)


def _bits(node: ir.Node, options: Options) -> int:
    return max(options.weights, options.depthwise) if is_depthwise(node) else options.weights


def _reduced(node: ir.Node, options: Options) -> bool:
    """Whether all weights give up range. Rounded to nearest, `reduce=auto` takes it from single outputs only."""
    w = array(node.inputs[1])
    assert w is not None
    learned = _is_learned(options) and saturation.pairs_up(node, w)
    return options.reduce is True or (options.reduce == "auto" and learned)


def _write_nearest(writer: qdq.Writer, node: ir.Node, found: Calibrated, own: Options) -> tuple[int, int]:
    """Gives how many outputs of how many gave up range."""
    source, w = node.inputs[0], array(node.inputs[1])
    assert source is not None
    assert w is not None
    scale, mean = found.grid[source].scale, found.mean[str(source.name)] if own.correct else None
    pairs = own.reduce == "auto" and saturation.pairs_up(node, w)
    levels = Levels.of(_bits(node, own), reduce=_reduced(node, own))
    stored = qweights.store(node, scale, mean, levels, per_channel=own.per_channel, pairs=pairs)
    writer.weights(node, stored, scale)
    return stored.narrowed, w.shape[qweights.channel_axis(node)]


def _notes(
    plan: Plan,
    own: Mapping[ir.Node, Options],
    bits: Mapping[ir.Node, int],
    narrowed: Mapping[ir.Node, tuple[int, int]],
    normal: Set[ir.Node],
) -> Iterator[Note]:
    for node in plan.weights:
        text = f"int{bits[node]}, {'a scale per channel' if own[node].per_channel else 'one scale'}"
        if _is_learned(own[node]):
            text += ", second-order" + (", levels of a normal distribution" if node in normal else "")
        some, of = narrowed.get(node, (0, 0))
        if some:
            text += f", less range for {some} of {of} outputs: two products would leave 16 bits"
        yield Note(layer(node), True, text)


def _constant(plan: Plan, found: Calibrated) -> Iterator[Note]:
    """Values that the samples say nothing of but one number: where others occur they are clipped to it."""
    for name in sorted({str(root.name) for root in plan.grid.values()} & set(found.constant)):
        what = f"is {found.constant[name]:g} on every sample: other values that occur elsewhere are clipped"
        yield Note(name, False, what)


def _average(sizes: Mapping[ir.Node, int], bits: Mapping[ir.Node, int]) -> tuple[Note, ...]:
    """The bits of a weight on average, where layers differ."""
    if all(v == 8 for v in bits.values()):
        return ()
    mean = sum(n * bits[k] for k, n in sizes.items()) / max(sum(sizes.values()), 1)
    return (Note("model", True, f"{mean:.2f} bits a weight on average"),)


def _write_values(graph: ir.Graph, writer: qdq.Writer, plan: Plan, found: Calibrated, options: Options) -> None:
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
    for node in () if options.symmetric else plan.clamps:  # a grid around zero does not end where they do
        assert node.inputs[0] is not None
        bypass(node, node.inputs[0])


SPEC = StepSpec(
    "integer activations and weights, calibrated",
    Options,
    apply,
    needs=frozenset({"data"}),
    after=("fold",),
    resolve=resolve,
    ops=LINEAR | qplan.MATH,
    final=True,
    gives_twin=True,
    large=True,
    float32=True,
)
