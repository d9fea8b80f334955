"""What each layer costs at each width: its weights alone rounded as `int8` rounds them, and the error at the output.

What `sensitivity` measures, but with the roundings that will be stored: by second order below 8 bits, fitted to some
of the samples and judged on others.
"""

from __future__ import annotations

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
from edgelathe.compress.integer import int8, qplan, weighted
from edgelathe.compress.mixed import rescaled
from edgelathe.compress.mixed.allocate import Choice
from edgelathe.compress.mixed.limits import HALF, operations
from edgelathe.compress.mixed.sizes import stored_bytes
from edgelathe.compress.sensitivity import passes
from edgelathe.compress.sensitivity.errors import Answer, Error, joined
from edgelathe.compress.sensitivity.reference import Change, Float
from edgelathe.compress.weights import levels, qweights, second_order
from edgelathe.compress.weights.problems import Pair, Problem, count_of, problems
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
        whole: those of the model.
        overrides: the recipe's.
    """

    model: ir.Model
    name: str
    layers: tuple[Weighted, ...]
    names: Mapping[str, tuple[str, ...]]
    options: Mapping[str, Options]
    whole: Options
    overrides: Mapping[str, Mapping[str, Any]]

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
        options,
        context.overrides,
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
    factors = rescaled.factors(of, widths, data)
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
                by = factors.get((la.name, bits))
                found[la.name][bits] = weighted.rounded(la, width, mean, per_channel=own.per_channel, by=by)
    pairs = [Pair(node, node) for node in learned]
    for pair, problem in problems(of.model, of.model, pairs, data, seed) if pairs else ():
        la = learned[pair.node]
        for bits in widths[la.name]:
            if bits not in found[la.name]:
                by, own = factors.get((la.name, bits)), of.options[la.name]
                found[la.name][bits] = _learned(la, problem, bits, own, by, count_of(of.model, data))
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


def _half(la: Weighted) -> Constants:
    w = array(la.node.inputs[1])
    assert w is not None
    return {la.weight: w.astype(np.float16).astype(np.float32)}


def _learned(
    la: Weighted, problem: Problem, bits: int, own: Options, by: NDArray[np.float64] | None, samples: int
) -> Constants:
    """As `int8` rounds, `by` factors of what the layer reads where it would rescale that."""
    w: NDArray[Any] | None = array(la.node.inputs[1])
    assert w is not None
    if by is not None:
        problem = rescaled.problem(problem, by, samples)
    least = np.zeros(problem.weights.shape[:2], np.float32)
    grid = levels.chosen(problem.wanted, problem.hessian, bits, own.levels, reduce=own.reduce is True)
    real = second_order.round_to(problem.wanted, problem.hessian, grid, least, shared=not own.per_channel).real()
    bias = problem.bias(real, unhidden=True) if la.bias else None
    if by is not None:
        real = real / rescaled.by_input(by, real)
    outputs_first = qweights.channel_axis(la.node) == 0
    weights = real.reshape(w.shape) if outputs_first else real.reshape(w.shape[::-1]).T
    out = {la.weight: np.ascontiguousarray(weights, np.float32)}
    return out if bias is None else out | {str(la.bias): bias}
