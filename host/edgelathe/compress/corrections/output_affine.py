"""`output-affine`: what a compressed model answers, corrected by an affine map per output channel, o' = c o + b.

The map is fitted to the float model's answers, or to labels, and goes into the last linear layer where that can hold
it. Of a classifier the values before Softmax are mapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.corrections import affine_fit, affine_write, ends, held_out
from edgelathe.compress.corrections.affine_fit import Map, Sums
from edgelathe.compress.corrections.held_out import HELD, Samples
from edgelathe.compress.graph import moves as g
from edgelathe.compress.graph.fold import infer_shapes
from edgelathe.compress.types import LINEAR, Applied, Context, Note, StepSpec, option
from edgelathe.core.dataset import METRICS
from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.corrections.ends import End
    from edgelathe.model.types import Model

STEP = "output-affine"
_SAMPLES = 1024
_A_CLASS = 4  # labelled samples a class that a fit to labels wants


@dataclass(frozen=True)
class Options:
    """Options of `output-affine`."""

    against: str = option(
        "float", "what answers are fitted to: the float model's, or the labels of the data", choices=("float", "labels")
    )


@dataclass(frozen=True, eq=False)
class Fitted:
    """The map of one end, the form of its values, and what it gives on samples held out, in words.

    `better` decides whether it is taken over.
    """

    end: End
    by: Map
    axis: int
    axes: int
    dtype: np.dtype[Any]
    better: bool
    said: str


def apply(model: Model, options: Options, context: Context) -> Applied:
    """Map the outputs of a compressed model, each where that lowers the error on samples that were held out.

    Raises UserError where there is no float model to compare with, labels are wanted and missing, or there are too few
    samples.
    """
    data, original = context.samples(STEP), context.original(STEP)
    work, reference = onnx_model.to_ir(model), onnx_model.to_ir(original)
    infer_shapes(work)
    found = ends.matching(work.graph, reference.graph)
    if not found:
        return Applied(model, (Note("model", False, "no output of real numbers that both models have"),))
    samples = Samples.of(data, original, _SAMPLES, STEP)
    fit = to_labels if options.against == "labels" else to_float
    fitted = fit(work, reference, found, samples)
    names, known = g.Names(work.graph), {of.end for of in fitted}
    what = (
        "it has another shape than the float model's"
        if options.against == "float"
        else "labels are of the first output"
    )
    notes = [Note(e.output, False, what) for e in found if e not in known]
    for of in fitted:
        took = of.better and bool(of.by.changes.any())
        what = affine_write.write(of.end.mine, of.by, of.axis, of.axes, of.dtype, names) if took else ""
        count = f"{of.by.changes.sum()} of {of.by.scale.size} channels"
        notes.append(Note(of.end.output, took, f"{count}, {what}: {of.said}" if took else f"left as it was: {of.said}"))
    changed = any(n.done for n in notes)
    return Applied(onnx_model.from_ir(work, model.name) if changed else model, tuple(notes))


def to_float(work: ir.Model, reference: ir.Model, found: Sequence[End], samples: Samples) -> list[Fitted]:
    """Least squares to the float model's answers, in one pass of both."""
    sums: dict[End, Sums] = {}
    forms: dict[End, tuple[int, int, np.dtype[Any]]] = {}
    start = 0
    for values in ends.pairs(work, reference, found, samples.chunks, samples.data.name):
        for end, (o, f) in zip(found, values, strict=True):
            if o.shape != f.shape or o.ndim < 2 or o.dtype.kind != "f":
                continue
            axis = affine_write.axis_of(end.mine)
            mine, theirs = (
                np.moveaxis(v.astype(np.float64), axis, -1).reshape(len(v), -1, v.shape[axis]) for v in (o, f)
            )
            total = sums.setdefault(end, Sums(o.shape[axis]))
            forms[end] = (axis, o.ndim, o.dtype)
            for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
                total.add(int(samples.fold[start + i]), a, b)
        start += len(values[0][0])
    out = []
    for end, total in sums.items():
        by = affine_fit.least_squares(total)
        old, new = (float(total.error([HELD], m).sum()) for m in (Map.none(by.scale.size), by))
        lost = 1 - new / old if old > 0 else 0.0
        said = f"squared error {100 * lost:.1f}% less on {samples.held_count} samples held out"
        out.append(Fitted(end, by, *forms[end], new < old, said if new < old else "no map lowers its error"))
    return out


def to_labels(work: ir.Model, reference: ir.Model, found: Sequence[End], samples: Samples) -> list[Fitted]:
    """The first output to the labels: least squares to real targets, highest likelihood to classes."""
    labels, data = samples.data.labels, samples.data
    where = f"{data.name}: {STEP}: against"
    if labels is None:
        raise UserError(where, "the calibration data have no labels", "give labels, or use against=float")
    end = found[0]
    parts = [values[0][0] for values in ends.pairs(work, reference, [end], samples.chunks, data.name)]
    o = np.concatenate(parts).astype(np.float64)
    axis, dtype = affine_write.axis_of(end.mine), parts[0].dtype
    if METRICS.get(data.metric) == "target":
        return [_to_targets(end, o, np.asarray(labels, np.float64), samples, (axis, dtype))]
    flat = o.reshape(len(o), -1)
    classes = flat.shape[1]
    if METRICS.get(data.metric) != "class" and labels.ndim != 1:
        raise UserError(where, f"labels of metric {data.metric} are not one class a sample", "use against=float")
    if classes < 2 or o.shape[axis] != classes or end.closing == "Sigmoid":
        raise UserError(where, f"output '{end.output}' is not one number a class", "use against=float")
    if labels.max() >= classes:
        raise UserError(where, f"label {labels.max()} of {classes} classes", "check the labels")
    if len(o) < _A_CLASS * classes:
        what = f"{len(o)} labelled samples are too few for {classes} classes"
        return [Fitted(end, Map.none(classes), axis, o.ndim, dtype, False, what)]
    by = affine_fit.likeliest(flat, labels, samples.fold)
    held, wanted = samples.fold == HELD, labels[samples.fold == HELD]
    both = (flat[held], by(flat[held]))
    loss = [affine_fit.log_loss(v, wanted) for v in both]
    right = [int((v.argmax(axis=1) == wanted).sum()) for v in both]
    said = f"log loss {loss[0]:.4f} -> {loss[1]:.4f}, right {right[0]} -> {right[1]} of {held.sum()} samples held out"
    return [Fitted(end, by, axis, o.ndim, dtype, loss[1] < loss[0] and right[1] >= right[0], said)]


def _to_targets(
    end: End, o: NDArray[np.float64], labels: NDArray[np.float64], samples: Samples, form: tuple[int, np.dtype[Any]]
) -> Fitted:
    if end.closing or labels.size != o.size or o.ndim < 2:
        what = f"labels are {'x'.join(map(str, labels.shape))}, output '{end.output}' is {'x'.join(map(str, o.shape))}"
        raise UserError(f"{samples.data.name}: {STEP}: against", what, "use against=float")
    axis, dtype = form
    a, b = (np.moveaxis(v.reshape(o.shape), axis, -1).reshape(len(o), -1, o.shape[axis]) for v in (o, labels))
    total = Sums(o.shape[axis])
    for k in range(held_out.FOLDS):
        own = samples.fold == k
        total.add(k, a[own].reshape(-1, a.shape[2]), b[own].reshape(-1, b.shape[2]))
    by = affine_fit.least_squares(total)
    old, new = (float(total.error([HELD], m).sum()) for m in (Map.none(by.scale.size), by))
    said = f"squared error to the labels {old:.4g} -> {new:.4g} on {samples.held_count} samples held out"
    return Fitted(end, by, axis, o.ndim, dtype, new < old, said)


SPEC = StepSpec(
    "answers corrected by an affine map per output channel, after another step",
    Options,
    apply,
    needs=frozenset({"data"}),
    ops=LINEAR,
    corrects=True,
)
