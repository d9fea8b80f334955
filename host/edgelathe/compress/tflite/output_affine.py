"""`output-affine` for TFLite: an affine map per output channel, written into scales and biases of the last layer.

o' = c o + b: the factor goes into the scales of weights and bias, the summand into the bias; the grid of the output
stays as it is. Of a classifier the values before Softmax are mapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.corrections import affine_fit
from edgelathe.compress.corrections.affine_fit import Map, Sums
from edgelathe.compress.corrections.held_out import HELD
from edgelathe.compress.tflite.aside import Runs
from edgelathe.compress.tflite.file import File
from edgelathe.compress.tflite.frontier import Frontier
from edgelathe.compress.tflite.layers import NONE, layers
from edgelathe.compress.types import LINEAR_TFLITE, Applied, Context, Note, StepSpec
from edgelathe.model import io, tflite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgelathe.compress.tflite.layers import Layer
    from edgelathe.model.types import Model

STEP = "output-affine"
_RUNS = 512
_MOVES = frozenset(("QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE"))
_CLOSING = frozenset(("SOFTMAX", "LOG_SOFTMAX", "LOGISTIC"))


@dataclass(frozen=True)
class Options:
    """`output-affine` of a TFLite file has no options: it is fitted to the float model's answers."""


def apply(model: Model, _options: Options, context: Context) -> Applied:
    """Map what the last layer makes where that lowers the error on samples that were held out.

    Raises UserError where there is no float model to compare with, or there are too few samples.
    """
    data, reference = context.samples(STEP), context.original(STEP)
    file, graphs = File(model.data), [tflite.parse(m.data).main for m in (model, reference)]
    ends = [_end(g) for g in graphs]
    name = model.signature.outputs[0].name
    if ends[0] is None or ends[1] is None or ends[0].outputs != ends[1].outputs:
        return Applied(model, (Note(name, False, "it is not made by a layer with weights"),))
    la, tensor = ends[0], graphs[0].tensors
    whole = la.bias < 0 or la.shared or len(tensor[la.weight].scales) != la.outputs or not tensor[la.bias].scales
    runs = Runs.of(model, reference, data, _RUNS, STEP)
    values = [
        _values(Frontier(f, g, r, data.name), end)
        for f, g, r, end in zip(
            (file, File(reference.data)), graphs, (runs.mine, runs.theirs), (ends[0], ends[1]), strict=True
        )
    ]
    sums = Sums(la.outputs)
    for k, o, f in zip(runs.fold, *values, strict=True):
        sums.add(int(k), o, f)
    by = affine_fit.least_squares(sums, scaled=not whole)
    old, new = (float(sums.error([HELD], m).sum()) for m in (Map.none(la.outputs), by))
    if la.bias < 0 or la.shared or not new < old:
        why = "no map lowers its error" if la.bias >= 0 and not la.shared else "its layer has no bias of its own"
        return Applied(model, (Note(name, False, f"left as it was: {why}"),))
    _write(file, graphs[0], la, by)
    said = f"squared error {100 * (1 - new / old):.1f}% less on {np.count_nonzero(runs.fold == HELD)} samples held out"
    text = f"{by.changes.sum()} of {by.scale.size} channels, into {la.name}: {said}"
    return Applied(io.from_bytes(file.data(), "tflite", model.name), (Note(name, True, text),))


def _end(graph: tflite.Subgraph) -> Layer | None:
    """The layer with weights that makes the first output, but for what only moves values and a closing Softmax."""
    made = {t: op for op in graph.operators for t in op.outputs}
    found = {la.output: la for la in layers(graph)}
    at, closed = graph.outputs[0], False
    while at not in found:
        op = made.get(at)
        if op is None or not (op.op in _MOVES or (op.op in _CLOSING and not closed)):
            return None
        closed = closed or op.op in _CLOSING
        at = op.inputs[0]
    return found[at] if found[at].fused == NONE else None


def _values(walk: Frontier, end: Layer) -> Sequence[NDArray[np.float64]]:
    """What the layer makes on each run, [places, channels]."""
    walk.advance(end.index + 1)
    return [v.reshape(-1, end.outputs).astype(np.float64) for v in walk.real(end.output)]


def _write(file: File, graph: tflite.Subgraph, la: Layer, by: Map) -> None:
    bias, weight = graph.tensors[la.bias], graph.tensors[la.weight]
    now = file.constant(la.bias).reshape(-1).astype(np.float64)
    if not bias.scales:
        file.set_constant(la.bias, now * by.scale + by.shift)
        return
    unit = np.broadcast_to(np.asarray(bias.scales, np.float64), now.shape)
    new = now * unit * by.scale + by.shift
    if (by.scale != 1).any():
        file.set_scale(la.weight, (np.asarray(weight.scales) * by.scale).astype(np.float32))
        file.set_scale(la.bias, (unit * by.scale).astype(np.float32))
    file.set_constant(la.bias, np.rint(new / (unit * by.scale)))


SPEC = StepSpec(
    "answers corrected by an affine map per output channel, after another step",
    Options,
    apply,
    needs=frozenset({"data"}),
    ops=LINEAR_TFLITE,
    corrects=True,
)
