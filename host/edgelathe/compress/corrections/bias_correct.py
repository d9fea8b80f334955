"""`bias-correct`: the mean error of every output channel is taken out of its bias.

Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, section 4.2, and appendix D
for the empirical form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.corrections import ends, held_out
from edgelathe.compress.corrections.held_out import Samples
from edgelathe.compress.corrections.normal_biases import normal_biases
from edgelathe.compress.corrections.slots import Slot, slot
from edgelathe.compress.forward.frontier import Frontier
from edgelathe.compress.graph import fold_linear
from edgelathe.compress.graph import moves as g
from edgelathe.compress.graph.fold import infer_shapes
from edgelathe.compress.graph.moves import name_of
from edgelathe.compress.types import LINEAR, Applied, Context, Note, StepSpec, option
from edgelathe.compress.weights import problems
from edgelathe.compress.weights.problems import Pair
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.corrections.slots import Array
    from edgelathe.compress.forward.partial import Chunks
    from edgelathe.model.types import Model

STEP = "bias-correct"


@dataclass(frozen=True)
class Options:
    """Options of `bias-correct`."""

    mode: str = option(
        "empirical",
        "the mean error measured on samples, or foretold from BatchNormalization statistics",
        choices=("empirical", "analytic"),
    )


@dataclass(frozen=True)
class Layer(Pair):
    """A layer whose bias may change: its node in the compressed graph, its twin in the float one, its bias."""

    slot: Slot

    @property
    def axis(self) -> int:
        """Of the channels in its output."""
        return 1 if self.twin.op_type.startswith("Conv") else -1


def apply(model: Model, options: Options, context: Context) -> Applied:
    """Correct the biases of a compressed model toward the float form that it was quantized from.

    From the front: each layer is measured behind layers that are corrected already, and where its output goes into a
    sum, the sum is. A channel is changed where that holds on samples outside of the fit, the whole model is where its
    answers are nearer to the float model's on samples that were held out.

    Raises UserError where nothing was quantized, or there are too few samples.
    """
    data, twin = context.samples(STEP), context.quantized_from(STEP)
    work, before = onnx_model.to_ir(model), onnx_model.to_ir(twin)
    infer_shapes(before)
    notes: list[Note] = []
    layers = list(layers_of(work.graph, before.graph, context, notes))
    wanted: dict[ir.Node, Array] | None = None
    if options.mode == "analytic":
        wanted, why = normal_biases(context.reference or twin, work, layers)
        notes += why
        layers = [la for la in layers if la.node in wanted]
    samples = Samples.of(data, twin, problems.count_of(before, data), STEP)
    names = g.Names(work.graph)
    found = [note for _, note in walk(work, before, layers, samples, names, wanted)]
    if not any(n.done for n in found):
        return Applied(model, (*notes, *found, Note("model", False, "no bias gains")))
    held = samples.held
    old, new = (ends.error(m, before, held, data.name) for m in (onnx_model.to_ir(model), work))
    said = f"answers on {samples.held_count} samples held out: {old.db:.2f} -> {new.db:.2f} dB of signal to noise"
    if not new.noise < old.noise:
        return Applied(model, (*notes, Note("model", False, f"biases left as they were, {said}")))
    return Applied(onnx_model.from_ir(work, model.name), (*notes, *found, Note("model", True, said)))


def walk(
    model: ir.Model,
    before: ir.Model,
    layers: Sequence[Layer],
    samples: Samples,
    names: g.Names,
    wanted: Mapping[ir.Node, Array] | None = None,
) -> Iterator[tuple[Layer, Note]]:
    """Correct layer after layer of `model`, in place.

    Args:
        model: the compressed graph.
        before: the float one, shapes inferred.
        layers: in the graph's order.
        samples: those of the last fold are only looked at for the notes.
        names: of `model`.
        wanted: biases by node that are taken where they help; None: the measured mean error is taken out.
    """
    feeds = samples.feeds
    ours, theirs = (Frontier(m, feeds, samples.data.name) for m in (model, before))
    undecided = {la.twin for la in layers}
    for la in layers:
        undecided.discard(la.twin)
        error = _errors(la, problems.sides_of(la, undecided), ours, theirs, samples.chunks)
        if error is None:
            yield la, Note(g.layer(la.twin), False, "its output has another shape")
            continue
        shift, taken = _shift(la, error, samples.fold, None if wanted is None else wanted[la.node])
        if taken.any():
            la.slot.write(la.slot.now + shift, names)
            if la.slot.node is la.node:
                ours.shift(la.node.outputs[0], shift, la.axis)
        rest = error[samples.fold == held_out.HELD].mean(axis=0)
        text = f"{taken.sum()} of {taken.size} channels, mean error {_size(rest):.3g} -> {_size(rest + shift):.3g}"
        yield la, Note(g.layer(la.twin), bool(taken.any()), text if taken.any() else "no channel gains")


def layers_of(graph: ir.Graph, before: ir.Graph, context: Context, notes: list[Note]) -> Iterator[Layer]:
    """The layers whose bias may change, in the order of `before`; why others may not goes to `notes`."""
    there = {g.layer(node): node for node in graph}
    for twin in g.standard_nodes(before):
        if twin.op_type not in LINEAR or (w := g.array(twin.inputs[1])) is None or w.ndim < 2:
            continue
        node, count = there.get(g.layer(twin)), fold_linear.channels(twin)
        if node is None or count is None:
            found: Slot | str = "it is not in the compressed model"
        elif g.skips(twin, context.overrides):
            found = "skipped by the recipe"
        else:
            found = slot(node, count, g.rank(twin.inputs[0]))
        if isinstance(found, str) or node is None:
            notes.append(Note(g.layer(twin), False, str(found)))
        else:
            yield Layer(node, twin, found)


def _errors(
    la: Layer, sides: tuple[ir.Value, ir.Value] | None, ours: Frontier, theirs: Frontier, chunks: Chunks
) -> Array | None:
    """The mean error of each channel on each sample [n, channels]; None where shapes differ."""
    mine, wanted = la.node.outputs[0], la.twin.outputs[0]
    parts: list[Array] | None = []
    left = ours.advance([mine, *([sides[1]] if sides else [])])
    right = theirs.advance([wanted, *([sides[0]] if sides else [])])
    for at, (a, b) in enumerate(zip(left, right, strict=True)):
        y, f = a[name_of(mine)], b[name_of(wanted)]
        size, count = chunks.size, la.slot.now.size
        if parts is None or y.shape != f.shape or y.shape[la.axis] != count or y.size % (size * count):
            parts = None
            continue
        error = y.astype(np.float64) - f
        if sides:
            error += a[name_of(sides[1])].astype(np.float64) - b[name_of(sides[0])]
        parts.append(np.moveaxis(error, la.axis, -1).reshape(size, -1, count).mean(axis=1)[: chunks.count(at)])
    return None if parts is None else np.concatenate(parts)


def _shift(la: Layer, error: Array, fold: NDArray[np.int64], wanted: Array | None) -> tuple[Array, NDArray[np.bool_]]:
    """What is added to each channel, as it can be stored, and which channels that is."""
    mean = error[fold != held_out.HELD].mean(axis=0)
    shift = la.slot.stored(la.slot.now - mean if wanted is None else wanted) - la.slot.now
    gains = held_out.gains(error, fold) if wanted is None else shift * shift + 2 * shift * mean < 0
    taken = gains & (shift != 0)
    return np.where(taken, shift, 0.0), taken


def _size(error: Array) -> float:
    """Root mean square."""
    return float(np.sqrt(np.square(error).mean()))


SPEC = StepSpec(
    "mean errors of output channels taken out of the biases, after a quantizing step",
    Options,
    apply,
    needs=frozenset({"data"}),
    ops=LINEAR,
    corrects=True,
)
