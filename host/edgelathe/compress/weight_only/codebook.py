"""`codebook`: each weight becomes one of few representatives; the file holds packed indices and the tables.

Integer quantization by frequency: weights are discretized with a step over a range, the values that occur are counted,
and the most useful ones stand for all. With calibration data the representative of each weight is chosen so that the
layer's output loses least (second order, layer after layer), else so that the errors of each output cancel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.graph import moves as g
from edgelathe.compress.graph.packed import Packer
from edgelathe.compress.integer import qdq
from edgelathe.compress.types import LINEAR, Applied, Context, Note, StepSpec, option
from edgelathe.compress.weight_only import codebook_input
from edgelathe.compress.weight_only.coded import Coded
from edgelathe.compress.weight_only.settle import (
    WIDEST,
    Choice,
    Weights,
    axis_of,
    constants,
    distance,
    is_fitted,
    ready,
    settle,
    unpaid,
)
from edgelathe.compress.weights import assignment, representatives
from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.weights.assignment import Array
    from edgelathe.compress.weights.problems import Problem
    from edgelathe.model.types import Model

# Which inputs of an operator are weights.
_PLACES = {
    "Conv": (1,), "ConvTranspose": (1,), "Gemm": (1,), "MatMul": (0, 1),
    "LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2), "Gather": (0,),
}  # fmt: skip
_TABLES = 0.035  # of a channel's float bytes: what its own table may take


@dataclass(frozen=True)
class Options:
    """Options of `codebook`."""

    entries: int = option(16, "representatives of a table; their indices take 1 to 8 bits", low=2, high=256)
    step: float | None = option(None, "step that values are discretized with, else chosen from the data", low=1e-12)
    range: float | None = option(None, "values beyond ± this are clipped, else the largest magnitude", low=1e-12)
    per: str = option(
        "channel", "a table for a tensor; or a step, and a table where it pays, for each output channel",
        choices=("tensor", "channel"),
    )  # fmt: skip
    by: str = option(
        "kmeans", "which values stay: those of least squared error, or the most frequent",
        choices=("kmeans", "frequency"),
    )  # fmt: skip
    inputs: bool = option(False, "discretize the model's inputs in the same way; needs calibration data")


def apply(model: Model, options: Options, context: Context) -> Applied:
    """Replace the weights of every layer where it pays; biases make up for the mean error.

    Raises UserError for a model that is quantized already, for a step that makes too many levels, and for `inputs`
    without calibration data.
    """
    if options.inputs and context.data is None:
        raise UserError("codebook: inputs", "needs calibration data", "give them with --data, or leave inputs out")
    on = ready(model, "auto", context)
    graph, notes = on.model.graph, [*on.notes]
    found = list(_found(graph, options, context, notes))
    if options.inputs and context.data is not None:
        notes += codebook_input.replace(graph, on.names, options, context.data)
    coded, told = settle(on, found, context, lambda of: _at_once(of, context), _fitted)
    notes += told
    if not coded and not options.inputs:
        return Applied(model, (*notes, Note("model", False, "no weights that pay")))
    packer = Packer(graph, on.names)
    for of, what in coded.items():
        of.value.replace_all_uses_with(what.write(packer))
        del graph.initializers[str(of.value.name)]
    qdq.finish(on.model, on.names)
    return Applied(onnx_model.from_ir(on.model, model.name), tuple(notes), twin=on.twin)


def _found(graph: ir.Graph, options: Options, context: Context, notes: list[Note]) -> Iterator[Weights[Options]]:
    for node, index, value, w in constants(graph, _PLACES):
        if w.dtype != np.float32:
            continue
        own = g.options_for(options, node, context.overrides)
        if own is None:
            notes.append(Note(g.layer(node), False, "skipped by the recipe"))
        elif value.is_graph_output() or not np.isfinite(w).all():
            notes.append(Note(g.layer(node), False, "its weights are an output of the model, or not finite"))
        else:
            yield Weights(value, node, axis_of(node, index, w.ndim), own)


def _at_once(of: Weights[Options], context: Context) -> Choice[Coded] | None:
    """What becomes of constants that no samples are needed for."""
    what = _exact(of)
    if what is None and context.data is not None and is_fitted(of):
        return None
    if what is None:
        what = _code(of, of.rows()[None], None)
    real = what.real()
    return _choice(of, what, real, distance(of.rows(), of.rows_of(real)))


def _fitted(of: Weights[Options], problem: Problem) -> Choice[Coded]:
    what = _code(of, problem.wanted, problem.hessian)
    real = what.real()
    return _choice(of, what, real, problem.loss(of.rows_of(real).reshape(problem.wanted.shape)))


def _choice(of: Weights[Options], what: Coded, real: NDArray[np.float32], error: float) -> Choice[Coded]:
    """The constant by indices, where it pays."""
    text = f"{_words(what)}, error {100 * error:.3g}%, {of.array.nbytes:,} -> {what.bytes:,} bytes"
    return unpaid(of, what.bytes) or Choice(Note(g.layer(of.node), True, text), what, real)


def _exact(of: Weights[Options]) -> Coded | None:
    """A table of all values, where there are few and the user asks for no other grid: nothing is lost."""
    if of.options.step is not None or of.options.range is not None:
        return None
    table = representatives.distinct(of.array, of.options.entries)
    return None if table is None else Coded(np.searchsorted(table, of.array), table)


def _code(of: Weights[Options], wanted: Array, hessian: Array | None) -> Coded:
    """Representatives and indices for real weights [g, o, f], whose errors count by the moments [g, f, f]."""
    rows = wanted.reshape(-1, wanted.shape[2])
    levels, steps, table = _tables(of, rows)
    if hessian is None and of.axis is not None and wanted.shape[2] <= WIDEST:
        hessian = assignment.presumed(wanted.shape[0], wanted.shape[2])
    shape = wanted.shape[:2]
    grid = levels if levels.ndim == 1 else levels.reshape(*shape, -1)
    if hessian is None:
        indices = representatives.nearest(rows / steps[:, None], levels).astype(np.int64)
    else:
        indices, _ = assignment.assign(wanted, hessian, grid, steps.reshape(shape))
    return Coded(of.shaped(indices.reshape(rows.shape)), table, *_steps(levels, steps, of))


def _tables(of: Weights[Options], rows: Array) -> tuple[Array, Array, NDArray[Any]]:
    """Levels [k], ascending, or [channels, k], in units of the steps [channels], and the table as it is stored."""
    own, k = of.options, of.options.entries
    half = max(representatives.HALF, k)
    count, inputs = rows.shape
    reach = float(np.abs(rows).max(initial=0.0)) if own.range is None else own.range
    if own.step is not None and reach / own.step > representatives.LEVELS:
        what = f"{own.step:g} makes too many levels of weights up to {reach:.3g}"
        raise UserError(
            f"codebook: step: {g.layer(of.node)}", what, f"give {reach / representatives.LEVELS:.2g} or more"
        )
    if own.per == "channel" and of.axis is not None and k + 4 <= _TABLES * 4 * inputs:
        found, steps = representatives.choose(rows, k, own.by, own.step, own.range)
        kind = np.int8 if np.abs(found).max() <= representatives.HALF else np.int16
        return found.astype(np.float64), steps, found.astype(kind)
    steps = np.ones(count)
    limit = own.range
    if own.per == "channel" and of.axis is not None and own.step is None:
        largest = np.abs(rows).max(axis=1) if limit is None else np.full(count, limit)
        steps = np.where(largest > 0, largest, 1.0).astype(np.float32).astype(np.float64)
        limit = 1.0
    found, unit = representatives.choose((rows / steps[:, None]).reshape(1, -1), k, own.by, own.step, limit, half)
    table = np.unique((found[0] * unit[0]).astype(np.float32))
    return table.astype(np.float64), steps, table


def _steps(levels: Array, steps: Array, of: Weights[Options]) -> tuple[NDArray[np.float32] | None, int]:
    plain = levels.ndim == 1 and bool((steps == 1).all())
    return None if plain else steps.astype(np.float32), of.axis or 0


def _words(what: Coded) -> str:
    k = what.table.shape[-1]
    if what.table.ndim == 2 and what.steps is not None:
        return f"{k} entries a channel, steps of {what.steps.min():.3g} to {what.steps.max():.3g}"
    spacing = float(np.diff(what.table).min()) if k > 1 else 0.0
    return f"{k} entries, {spacing:.3g} apart or more" + ("" if what.steps is None else ", a scale per channel")


SPEC = StepSpec(
    "few representatives for all weights, packed indices in the file",
    Options,
    apply,
    after=("fold",),
    ops=LINEAR | {"LSTM", "GRU", "RNN"},
    final=True,
    large=True,
    float32=True,
)
