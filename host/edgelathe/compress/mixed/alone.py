"""What each layer costs at each width: its weights alone rounded as `int8` rounds them, and the error at the output.

What `sensitivity` measures, but with the roundings that will be stored: by second order below 8 bits, fitted to some
of the samples and judged on others.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.forward import partial
from edgelathe.compress.graph import opset
from edgelathe.compress.graph.canonical import canonical
from edgelathe.compress.graph.equalize import balance
from edgelathe.compress.graph.fold import infer_shapes
from edgelathe.compress.graph.moves import Names, array, layer, options_for, refuse_quantized
from edgelathe.compress.graph.packed import Packer, packed_bytes
from edgelathe.compress.integer import int8, qplan, weighted
from edgelathe.compress.mixed.allocate import Choice
from edgelathe.compress.mixed.limits import FLOAT, HALF, operations
from edgelathe.compress.sensitivity import passes
from edgelathe.compress.sensitivity.errors import Answer, Error, joined
from edgelathe.compress.sensitivity.reference import Change, Float
from edgelathe.compress.weights import levels, qweights, second_order
from edgelathe.compress.weights.levels import NORMAL_BITS, Levels
from edgelathe.compress.weights.problems import Pair, Problem, problems
from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model
from edgelathe.model.graph import layers as graph_layers

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.integer.int8 import Options
    from edgelathe.compress.integer.weighted import Weighted
    from edgelathe.compress.types import Context
    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model


Constants = Mapping[str, "NDArray[np.float32]"]


@dataclass(frozen=True, eq=False)
class Subject:
    """A float model in the form that `int8` rounds.

    Attributes:
        model: the graph; its layers keep their names.
        name: for messages.
        layers: those that `int8` would make integer; layers of equal weights are one.
        names: of all nodes of a layer, by its own.
        options: of `int8`, for each layer.
    """

    model: ir.Model
    name: str
    layers: tuple[Weighted, ...]
    names: Mapping[str, tuple[str, ...]]
    options: Mapping[str, Options]

    def run(self, data: Dataset, run_all: partial.Map) -> Float:
        """The float model on samples. Raises UserError where it does not run, or has no output of real numbers."""
        whole = onnx_model.from_ir(self.model, self.name)
        held = sum(4 * math.prod(d or 1 for d in la.shape) for la in graph_layers(whole) if la.shape is not None)
        chunks = partial.chunks_of(whole, data, max(1, passes.BLOCK_BYTES // max(1, held)))
        found = Float.of(onnx_model.to_proto(whole), self.name, chunks, run_all)
        if not judged(found):
            raise UserError(self.name, "has no output of real numbers to judge widths by", "use int8(weights=...)")
        return found


def subject(model: Model, options: Options, context: Context) -> Subject:
    """What `int8` does before it rounds, and the layers that it would make integer. Raises UserError."""
    model, _ = opset.at_least(model)
    rough = onnx_model.to_ir(model)
    refuse_quantized(rough.graph, model.name)
    infer_shapes(rough)
    names = Names(rough.graph)
    canonical(rough.graph, names)
    balance(rough.graph, names, options.equalize, context.overrides)
    made = onnx_model.to_ir(onnx_model.from_ir(rough, model.name))
    infer_shapes(made)
    found, _ = weighted.layers(made)
    plan = qplan.plan(made.graph, int8.Refusal(made.graph, options, context))
    nodes, integer = tuple(made.graph), set(plan.weights)
    layers = tuple(la for la in found if all(nodes[at] in integer for at in la.positions))
    return Subject(
        made,
        model.name,
        layers,
        {la.name: tuple(layer(nodes[at]) for at in la.positions) for la in layers},
        {la.name: options_for(options, la.node, context.overrides) or options for la in layers},
    )


def forms(
    of: Subject, widths: Mapping[str, Sequence[int]], data: Dataset, means: Mapping[str, NDArray[np.float64]], seed: int
) -> dict[str, dict[int, Constants]]:
    """The constants of each layer at each of its widths, by layer and width, each rounded with all others in float.

    Args:
        of: the model.
        widths: bits, 2 to 8, `HALF` or `FLOAT`, by layer.
        data: that roundings of second order are fitted to.
        means: as `reference.input_means` gives them.
        seed: of the places that are looked at.
    """
    found: dict[str, dict[int, Constants]] = {la.name: {} for la in of.layers}
    learned: dict[ir.Node, Weighted] = {}
    for la in of.layers:
        own = of.options[la.name]
        for bits in widths[la.name]:
            if bits > 8:
                found[la.name][bits] = _half(la) if bits == HALF else {}
            elif len(la.positions) == 1 and is_learned(own, bits):
                learned[la.node] = la
            else:
                mean = means[la.source] if own.correct else None
                width = 7 if bits == 8 and own.reduce is True else bits  # as coarse, but for one level
                found[la.name][bits] = weighted.rounded(la, width, mean, per_channel=own.per_channel)
    pairs = [Pair(node, node) for node in learned]
    for pair, problem in problems(of.model, of.model, pairs, data, seed) if pairs else ():
        la = learned[pair.node]
        for bits in widths[la.name]:
            if bits not in found[la.name]:
                found[la.name][bits] = _learned(la, problem, bits, of.options[la.name])
    return found


def is_learned(options: Options, bits: int) -> bool:
    """Whether `int8` rounds a layer of so many bits by second order."""
    return options.rounding == "second-order" or (options.rounding == "auto" and bits < 8)


def losses(
    of: Float, layers: Sequence[Weighted], made: Mapping[str, Mapping[int, Constants]]
) -> dict[str, dict[int, float]]:
    """The loss at the model's output, by layer and width; 0 where no output hangs on the layer."""
    cuts = {la.name: cut for la in layers if (cut := passes.cut(of.proto.graph, la))}
    parts: dict[tuple[str, int], list[Answer]] = {}
    for block in passes.blocks(of, cuts):
        for la in layers:
            changes = {bits: Change(c) for bits, c in made[la.name].items() if c}
            if la.name in cuts and changes:
                for bits, answer in block.answers(la, cuts[la.name], changes).items():
                    parts.setdefault((la.name, bits), []).append(Answer(answer.first[:0], answer.errors))
    return {
        la.name: {
            bits: loss(of, joined(parts[la.name, bits])) if (la.name, bits) in parts else 0.0 for bits in made[la.name]
        }
        for la in layers
    }


def judged(of: Float) -> tuple[str, ...]:
    """The values that errors are looked at: what goes into closing operators, else the outputs."""
    return of.hidden or of.outputs


def loss(of: Float, answer: Answer) -> float:
    """Noise over signal, summed over the judged values; infinite where a value is not finite."""
    found = 0.0
    for name in judged(of):
        error = sum(answer.errors[name], Error())
        part = error.noise / error.signal if error.signal else error.noise
        found += part if math.isfinite(part) else math.inf
    return found


def choices(la: Weighted, lost: Mapping[int, float], macs: int = 0) -> tuple[Choice, ...]:
    """What a layer may be, fewest bits first; `macs` of one sample count where bit operations do."""
    return tuple(
        Choice(b, stored_bytes(la.elements, la.channels, b), lost[b], macs * operations(b)) for b in sorted(lost)
    )


def stored_bytes(elements: int, channels: int, bits: float) -> int:
    """What weights take in the file: packed, with scale, zero point and offset a channel, and the unpacking nodes.

    `bits` that are no whole number stand between two widths.
    """
    if bits >= FLOAT:
        return 4 * elements
    if bits == HALF:
        return 2 * elements
    low = math.floor(bits)
    if low < bits:
        below, above = (stored_bytes(elements, channels, b) for b in (low, low + 1))
        return round(below + (above - below) * (bits - low))
    return packed_bytes(elements, low) + (5 + (low in NORMAL_BITS)) * channels + unpacking_bytes(low)


@functools.cache
def unpacking_bytes(bits: int) -> int:
    """What the nodes of one more constant of so many bits take in the file, beside what several share."""
    one, plain = (_packed_graph(b, 2) - _packed_graph(b, 1) for b in (bits, 8))
    return one - plain if bits < 8 else 0


@functools.cache
def shared_bytes(bits: int) -> int:
    """What the constants of so many bits share in the file: tables that they are unpacked by."""
    return _packed_graph(bits, 1) - _packed_graph(8, 1) - unpacking_bytes(bits) if bits < 8 else 0


def _packed_graph(bits: int, count: int) -> int:
    """Bytes of a graph of so many packed constants, the packed integers left out."""
    import onnx_ir as ir

    graph = ir.Graph([], [], nodes=[], opset_imports={"": opset.LOWEST}, name="g")
    packer, packed = Packer(graph, Names(graph)), 0
    for i in range(1, count + 1):
        shape = (16, 8 * i)
        if bits in NORMAL_BITS:
            table = Levels.normal(bits).values or ()
            packer.moved(np.full(shape, table[0] + 1, np.int8), bits, table, np.ones(16, np.int8), 0)
            packed += 16
        else:
            packer.integers(np.resize(np.array([-1, 0, i], np.int8).clip(-2, 1), shape), bits, np.int8)
        packed += packed_bytes(math.prod(shape), bits)
    return int(ir.serde.serialize_graph(graph).ByteSize()) - packed


def _half(la: Weighted) -> Constants:
    w = array(la.node.inputs[1])
    assert w is not None
    return {la.weight: w.astype(np.float16).astype(np.float32)}


def _learned(la: Weighted, problem: Problem, bits: int, own: Options) -> Constants:
    w: NDArray[Any] | None = array(la.node.inputs[1])
    assert w is not None
    least = np.zeros(problem.weights.shape[:2], np.float32)
    grid = levels.chosen(problem.wanted, problem.hessian, bits, own.levels, reduce=own.reduce is True)
    real = second_order.round_to(problem.wanted, problem.hessian, grid, least, shared=not own.per_channel).real()
    outputs_first = qweights.channel_axis(la.node) == 0
    weights = real.reshape(w.shape) if outputs_first else real.reshape(w.shape[::-1]).T
    out = {la.weight: np.ascontiguousarray(weights, np.float32)}
    bias = problem.bias(real, unhidden=True) if la.bias else None
    return out if bias is None else out | {str(la.bias): bias}
