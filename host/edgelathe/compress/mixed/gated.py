"""New scales and biases for the layers of a finished integer model, channel by channel, where they lower the error.

From the front, so that each fit sees what the layers before it, as they are settled, make. Each output channel gets the
affine map of least squared error toward the float layer's output; it is taken over for the channels that gain on
samples outside of the fit, and for the layer where the model's answers on samples that were held out come nearer to the
float model's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.corrections import affine_fit, bias_correct, ends
from edgelathe.compress.corrections.affine_fit import Map, Sums
from edgelathe.compress.corrections.held_out import Samples
from edgelathe.compress.corrections.slots import scale_weights
from edgelathe.compress.forward.frontier import Frontier
from edgelathe.compress.graph import moves as g
from edgelathe.compress.graph.fold import infer_shapes
from edgelathe.compress.graph.moves import name_of
from edgelathe.compress.types import Note
from edgelathe.compress.weights import problems
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.corrections.bias_correct import Layer
    from edgelathe.compress.types import Context
    from edgelathe.model.types import Model


def gated(model: Model, twin: Model, context: Context, step: str) -> tuple[Model, tuple[Note, ...]]:
    """The integer `model` with the maps that were taken over, and a note a layer that changed and one for all.

    `twin` is its float form. Raises UserError, naming the `step`, where there are too few samples to hold some out.
    """
    data = context.samples(step)
    work, before = onnx_model.to_ir(model), onnx_model.to_ir(twin)
    infer_shapes(before)
    samples = Samples.of(data, twin, problems.count_of(before, data), step)
    layers = list(bias_correct.layers_of(work.graph, before.graph, context, []))
    ours, theirs = (Frontier(m, samples.feeds, data.name) for m in (work, before))
    start = error = ends.error(work, before, samples.held, data.name)
    names, later, notes = g.Names(work.graph), {la.twin for la in layers}, []
    for la in layers:
        later.discard(la.twin)
        sums = _sums(la, problems.sides_of(la, later), ours, theirs, samples)
        by = affine_fit.least_squares(sums) if sums is not None else Map.none(1)
        if not by.changes.any():
            continue
        trial = onnx_model.to_ir(model)
        if _write(_same(trial, la), by, g.Names(trial.graph)) is None:
            continue
        found = ends.error(trial, before, samples.held, data.name)
        if found.noise < error.noise:
            model, error = onnx_model.from_ir(trial, model.name), found
            shift = _write(la, by, names)
            assert shift is not None  # it could be written into the same layer just now
            ours.shift(la.node.outputs[0], shift, la.axis, by.scale)
            notes.append(
                Note(g.layer(la.twin), True, f"{by.changes.sum()} of {by.scale.size} channels rescaled or shifted")
            )
    held = f"answers on {samples.held_count} samples held out: {start.db:.2f} -> {error.db:.2f} dB"
    said = f"gate by channel: {len(notes)} of {len(layers)} layers take new scales and biases, {held}"
    return model, (*notes, Note("model", bool(notes), said))


def _sums(
    la: Layer, sides: tuple[ir.Value, ir.Value] | None, ours: Frontier, theirs: Frontier, samples: Samples
) -> Sums | None:
    """What a layer makes and what it should; in a sum with an earlier value it makes up for that one's error.

    None where shapes differ.
    """
    sums: Sums | None = Sums(la.slot.now.size)
    mine, wanted = la.node.outputs[0], la.twin.outputs[0]
    left = ours.advance([mine, *([sides[1]] if sides else [])])
    right = theirs.advance([wanted, *([sides[0]] if sides else [])])
    for at, (a, b) in enumerate(zip(left, right, strict=True)):  # all chunks have to be taken
        o, f = a[name_of(mine)], b[name_of(wanted)]
        if sums is None or o.shape != f.shape or o.shape[la.axis] != la.slot.now.size or o.size % samples.chunks.size:
            sums = None
            continue
        if sides:
            f = f + (b[name_of(sides[0])] - a[name_of(sides[1])])
        rows = [_rows(v, la.axis, samples.chunks.size)[: samples.chunks.count(at)] for v in (o, f)]
        for i, (x, y) in enumerate(zip(*rows, strict=True), at * samples.chunks.size):
            sums.add(int(samples.fold[i]), x, y)
    return sums


def _rows(values: NDArray[np.float32], axis: int, size: int) -> NDArray[np.float64]:
    """[size, places, channels]."""
    return np.moveaxis(values, axis, -1).reshape(size, -1, values.shape[axis]).astype(np.float64)


def _same(model: ir.Model, la: Layer) -> Layer:
    """The same layer in a copy of its model."""
    there = {g.layer(n): n for n in model.graph}
    node, adds = there[g.layer(la.node)], there[g.layer(la.slot.node)]
    return replace(la, node=node, slot=replace(la.slot, node=adds))


def _write(la: Layer, by: Map, names: g.Names) -> NDArray[np.float64] | None:
    """Put a map into the layer's weights and bias; what is added to its scaled output, None where it holds no scale."""
    here = la.slot
    if (by.scale != 1).any():
        if not scale_weights(la.node, by.scale, names):
            return None
        here = here.scaled(by.scale)
    if here.node is not la.node:  # the bias is added behind what was compared
        here.write(here.now + by.shift, names)
        return np.zeros_like(by.shift)
    bias = here.now * by.scale + by.shift
    here.write(bias, names)
    return here.stored(bias) - here.now * by.scale
