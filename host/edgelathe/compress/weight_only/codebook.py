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
from edgelathe.compress.graph.canonical import plain_gemm
from edgelathe.compress.graph.equalize import balance
from edgelathe.compress.graph.fold import infer_shapes
from edgelathe.compress.graph.packed import Packer
from edgelathe.compress.integer import qdq
from edgelathe.compress.types import LINEAR, Applied, Context, Note, StepSpec, option
from edgelathe.compress.weight_only import codebook_input
from edgelathe.compress.weight_only.coded import Coded
from edgelathe.compress.weights import assignment, problems, representatives
from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.weights.assignment import Array
    from edgelathe.model.types import Model

# Which inputs of an operator are weights.
_PLACES = {
    "Conv": (1,), "ConvTranspose": (1,), "Gemm": (1,), "MatMul": (0, 1),
    "LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2), "Gather": (0,),
}  # fmt: skip
_NODES = 200  # bytes of the nodes that look one constant up, about
_PAYS = 0.75  # of its float bytes: what takes more stays float
_TABLES = 0.035  # of a channel's float bytes: what its own table may take
_WIDEST = 5_000  # inputs of the widest layer that second order is for


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


@dataclass(frozen=True, eq=False)
class _Weights:
    """One constant: where it is first read, its channels' axis (None where it has none), the options that hold."""

    value: ir.Value
    node: ir.Node
    axis: int | None
    options: Options

    @property
    def array(self) -> NDArray[np.float32]:
        found = g.array(self.value)
        assert found is not None
        return found

    def rows(self) -> Array:
        """[channels, weights of one]; a single row where there are no channels."""
        w = self.array.astype(np.float64)
        return w.reshape(1, -1) if self.axis is None else np.moveaxis(w, self.axis, 0).reshape(w.shape[self.axis], -1)

    def shaped(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The inverse of `rows`."""
        if self.axis is None:
            return rows.reshape(self.array.shape)
        moved = np.moveaxis(self.array, self.axis, 0).shape
        return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, self.axis))


def apply(model: Model, options: Options, context: Context) -> Applied:
    """Replace the weights of every layer where it pays; biases make up for the mean error.

    Raises UserError for a model that is quantized already, for a step that makes too many levels, and for `inputs`
    without calibration data.
    """
    import onnx_ir.passes.common as passes

    if options.inputs and context.data is None:
        raise UserError("codebook: inputs", "needs calibration data", "give them with --data, or leave inputs out")
    work = onnx_model.to_ir(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(work)
    g.refuse_quantized(work.graph, model.name)
    infer_shapes(work)
    names = g.Names(work.graph)
    for node in g.standard_nodes(work.graph):
        if node.op_type == "Gemm":
            plain_gemm(node, names)
    notes = [*balance(work.graph, names, "auto", context.overrides)]
    twin = onnx_model.from_ir(work, model.name)
    before = onnx_model.to_ir(twin)
    infer_shapes(before)
    twins = dict(zip(work.graph, before.graph, strict=True))
    found = list(_found(work.graph, options, context, notes))
    if options.inputs and context.data is not None:
        notes += codebook_input.replace(work.graph, names, options, context.data)
    coded = _settle(work, before, twins, found, context, names, notes)
    packer = Packer(work.graph, names)
    for of, what in coded.items():
        of.value.replace_all_uses_with(what.write(packer))
        del work.graph.initializers[str(of.value.name)]
    if not coded and not options.inputs:
        return Applied(model, (*notes, Note("model", False, "no weights that pay")))
    qdq.finish(work, names)
    return Applied(onnx_model.from_ir(work, model.name), tuple(notes), twin=twin)


def _found(graph: ir.Graph, options: Options, context: Context, notes: list[Note]) -> Iterator[_Weights]:
    seen = set[Any]()
    for node in g.standard_nodes(graph):
        for index in _PLACES.get(node.op_type, ()):
            value = node.inputs[index] if len(node.inputs) > index else None
            w = g.array(value)
            if value is None or w is None or w.ndim < 2 or w.dtype != np.float32 or value in seen:
                continue
            seen.add(value)
            own = g.options_for(options, node, context.overrides)
            if own is None:
                notes.append(Note(g.layer(node), False, "skipped by the recipe"))
            elif value.is_graph_output() or not np.isfinite(w).all():
                notes.append(Note(g.layer(node), False, "its weights are an output of the model, or not finite"))
            else:
                yield _Weights(value, node, _axis(node, index, w.ndim), own)


def _axis(node: ir.Node, index: int, dims: int) -> int | None:
    """The axis of output channels."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and g.number(node, "transB", 0)):
        return 0
    if node.op_type == "Gemm" or (node.op_type == "MatMul" and index == 1 and dims == 2):
        return 1
    return 1 if node.op_type == "ConvTranspose" and g.number(node, "group", 1) == 1 else None


def _settle(
    work: ir.Model, before: ir.Model, twins: dict[ir.Node, ir.Node], found: list[_Weights], context: Context,
    names: g.Names, notes: list[Note],
) -> dict[_Weights, Coded]:  # fmt: skip
    """Choose representatives for each constant, those first that no samples are needed for, and put them in place."""
    import onnx_ir as ir

    out: dict[_Weights, Coded] = {}
    told: dict[_Weights, Note] = {}

    def take(of: _Weights, what: Coded, error: float) -> bool:
        size, whole = what.bytes, of.array.nbytes
        pays = size + _NODES < _PAYS * whole
        text = f"{_words(what)}, error {100 * error:.3g}%, {whole:,} -> {size:,} bytes"
        told[of] = Note(g.layer(of.node), pays, text if pays else f"stays float: {whole:,} -> {size:,} bytes and nodes")
        if pays:
            out[of] = what
            of.value.const_value = ir.tensor(what.real(), name=of.value.name)
        return pays

    later: dict[ir.Node, _Weights] = {}
    for of in found:
        what = _exact(of)
        if what is None and context.data is not None and _is_linear(of):
            later[of.node] = of
            continue
        if what is None:
            what = _code(of, of.rows()[None], None)
        take(of, what, _distance(of.array, what.real()))
    pairs = [problems.Pair(n, twins[n]) for n in later]
    solved = problems.problems(work, before, pairs, context.data, context.seed) if context.data and pairs else ()
    for pair, problem in solved:
        of = later[pair.node]
        what = _code(of, problem.wanted, problem.hessian)
        real = _rows_of(of, what.real()).reshape(problem.wanted.shape)
        if take(of, what, problem.loss(real)):
            bias = problem.bias(real)
            if bias is not None:
                g.set_constant(pair.node, 2, bias, names)
    notes += [told[of] for of in found]
    return {of: out[of] for of in found if of in out}


def _exact(of: _Weights) -> Coded | None:
    """A table of all values, where there are few and the user asks for no other grid: nothing is lost."""
    if of.options.step is not None or of.options.range is not None:
        return None
    table = representatives.distinct(of.array, of.options.entries)
    return None if table is None else Coded(np.searchsorted(table, of.array), table)


def _is_linear(of: _Weights) -> bool:
    """Whether second order can be had from what the layer reads."""
    w, node = of.array, of.node
    plain = node.op_type == "Conv" or (node.op_type in ("Gemm", "MatMul") and w.ndim == 2 and of.axis is not None)
    bias = node.inputs[2] if node.op_type != "MatMul" and len(node.inputs) > 2 else None
    own_bias = bias is None or (g.array(bias) is not None and g.rank(bias) == 1)
    free = own_bias and not g.number(node, "transA", 0) and len(of.value.uses()) == 1
    return plain and free and w.size // len(of.rows()) <= _WIDEST and g.array(node.inputs[0]) is None


def _code(of: _Weights, wanted: Array, hessian: Array | None) -> Coded:
    """Representatives and indices for real weights [g, o, f], whose errors count by the moments [g, f, f]."""
    rows = wanted.reshape(-1, wanted.shape[2])
    levels, steps, table = _tables(of, rows)
    if hessian is None and of.axis is not None and wanted.shape[2] <= _WIDEST:
        hessian = assignment.presumed(wanted.shape[0], wanted.shape[2])
    shape = wanted.shape[:2]
    grid = levels if levels.ndim == 1 else levels.reshape(*shape, -1)
    if hessian is None:
        indices = representatives.nearest(rows / steps[:, None], levels).astype(np.int64)
    else:
        indices, _ = assignment.assign(wanted, hessian, grid, steps.reshape(shape))
    return Coded(of.shaped(indices.reshape(rows.shape)), table, *_steps(levels, steps, of))


def _tables(of: _Weights, rows: Array) -> tuple[Array, Array, NDArray[Any]]:
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


def _steps(levels: Array, steps: Array, of: _Weights) -> tuple[NDArray[np.float32] | None, int]:
    plain = levels.ndim == 1 and bool((steps == 1).all())
    return None if plain else steps.astype(np.float32), of.axis or 0


def _rows_of(of: _Weights, w: NDArray[np.float32]) -> Array:
    moved = w if of.axis is None else np.moveaxis(w, of.axis, 0)
    return moved.astype(np.float64)


def _distance(w: NDArray[np.float32], real: NDArray[np.float32]) -> float:
    """Size of the weights' error relative to theirs."""
    size = float(np.linalg.norm(w.astype(np.float64)))
    return float(np.linalg.norm(w.astype(np.float64) - real)) / size if size else 0.0


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
)
