"""`int4`: weights in 4 bits with a scale for every few inputs, activations in float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.graph import moves as g
from edgelathe.compress.graph import opset
from edgelathe.compress.graph.packed import Packer
from edgelathe.compress.integer import qdq
from edgelathe.compress.types import LINEAR, Applied, Context, Note, StepSpec, option
from edgelathe.compress.weight_only import int4_forms
from edgelathe.compress.weight_only.int4_forms import DOMAIN, IR_VERSION, OPSET, Products, unpacked
from edgelathe.compress.weight_only.settle import (
    WIDEST,
    Choice,
    Weights,
    axis_of,
    constants,
    distance,
    is_fitted,
    is_product,
    ready,
    settle,
    unpaid,
)
from edgelathe.compress.weights import assignment, blockwise
from edgelathe.compress.weights.blockwise import Blocks, Form
from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

    from edgelathe.compress.weights.problems import Problem
    from edgelathe.model.types import Model

# Which inputs of an operator are weights.
_PLACES = {
    "Conv": (1,), "ConvTranspose": (1,), "Gemm": (1,), "MatMul": (1,),
    "LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2), "Gather": (0,),
}  # fmt: skip
# Operators that make no number below 0, and those that keep it so.
_ONE_SIGN = frozenset(("Relu", "Sigmoid", "Softmax", "HardSigmoid", "Abs"))
_KEEPING = frozenset(
    (
        "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "Reshape", "Flatten",
        "Transpose", "Squeeze", "Unsqueeze", "Slice", "Pad", "Identity", "Dropout",
    )
)  # fmt: skip
_LOWEST = 11  # opset of the operators that unpack weights
_HALF = (1e-3, 6e4)  # largest weights of layers whose scales are exact enough in float16
_CONFIG = "session.qdq_matmulnbits_accuracy_level"


@dataclass(frozen=True)
class Options:
    """Options of `int4`."""

    block: int = option(32, "inputs that share a scale", choices=(16, 32, 64, 128, 256))
    symmetric: bool = option(True, "no zero points, else half a byte more for each block")
    rounding: str = option(
        "auto", "how weights are rounded; auto: second-order, without data on what can be presumed of the inputs",
        choices=("auto", "nearest", "second-order"),
    )  # fmt: skip
    form: str = option(
        "nbits", "products as ONNX Runtime's MatMulNBits, as standard int4 (opset 21), or unpacked to float at load",
        choices=("nbits", "qdq", "packed"),
    )  # fmt: skip
    compute: str = option(
        "float", "activations in MatMulNBits: float, or int8, quantized as they come", choices=("float", "int8")
    )
    scales: str = option("float16", "how scales are stored; always float32 in qdq", choices=("float16", "float32"))
    depthwise: int = option(8, "bits of the weights of depthwise convolutions", choices=(4, 8))
    equalize: str = option("auto", "rescale channels that differ first", choices=("auto", "always", "never"))


@dataclass(frozen=True, eq=False)
class _Weights(Weights[Options]):
    """One constant, and the products that read it, where nothing else does."""

    products: tuple[ir.Node, ...]

    def form(self) -> Form:
        """Bits, block and scales for these weights."""
        own, w = self.options, self.array
        inputs, largest = w.size // max(len(self.rows()), 1), float(np.abs(w).max(initial=0.0))
        standard = own.form == "qdq" and bool(self.products)
        half = own.scales == "float16" and _HALF[0] < largest < _HALF[1] and not standard
        if self.products and own.form != "packed":
            return Form(4, own.block, own.symmetric, negative=own.form == "nbits", half=half)
        if g.is_depthwise(self.node) and own.depthwise == 8:
            return Form(8, inputs, symmetric=True, negative=True, half=half)
        even = -(-inputs // max(1, -(-inputs // own.block)))
        return Form(4, even, own.symmetric, negative=True, half=half)


def apply(model: Model, options: Options, context: Context) -> Applied:
    """Store the weights of every layer in 4 bits where it pays; biases make up for the mean error.

    Raises UserError for a model that is quantized already or has weights that are not finite, and for
    `rounding=second-order` without calibration data.
    """
    if options.rounding == "second-order" and context.data is None:
        raise UserError("int4: rounding", "second-order needs calibration data", "give them with --data")
    standard = "qdq" in (options.form, *(v.get("form") for v in context.overrides.values()))
    model, raised = opset.at_least(model, OPSET if standard else _LOWEST)
    on = ready(model, options.equalize, context, finite=True)
    notes = [*raised, *on.notes]
    found = list(_found(on.model.graph, options, context, notes))
    done, told = settle(on, found, context, lambda of: _at_once(of, context), _fitted)
    notes += told
    if not done:
        return Applied(model, (*notes, Note("model", False, "no weights that pay")))
    config = _write(on.model, done, on.names)
    qdq.finish(on.model, on.names)
    return Applied(onnx_model.from_ir(on.model, model.name), tuple(notes), config, on.twin)


def _found(graph: ir.Graph, options: Options, context: Context, notes: list[Note]) -> Iterator[_Weights]:
    for node, index, value, w in constants(graph, _PLACES):
        own = g.options_for(options, node, context.overrides)
        if own is None or any(g.skips(use.node, context.overrides) for use in value.uses()):
            notes.append(Note(g.layer(node), False, "skipped by the recipe"))
        elif w.dtype != np.float32 or value.is_graph_output():
            what = "an output of the model" if value.is_graph_output() else str(w.dtype)
            notes.append(Note(g.layer(node), False, f"its weights are {what}"))
        else:
            axis = axis_of(node, index, w.ndim)
            grouped = axis is None and node.op_type == "ConvTranspose"
            yield _Weights(value, node, 0 if grouped else axis, own, _products(value))


def _products(value: ir.Value) -> tuple[ir.Node, ...]:
    """The MatMul and Gemm that read the weights, all in the same way; none where another reads them too."""
    nodes = tuple(use.node for use in value.uses())
    plain = all(use.idx == 1 and is_product(use.node) for use in value.uses())
    return nodes if plain and len({axis_of(n, 1, 2) for n in nodes}) == 1 else ()


def _at_once(of: _Weights, context: Context) -> Choice[Blocks] | None:
    """The codes of constants that no samples are needed for."""
    stays = unpaid(of, int4_forms.size(of.rows().shape, of.form()))
    if stays is not None:
        return stays
    if context.data is not None and of.options.rounding != "nearest" and is_fitted(of):
        return None
    blocks = _without_samples(of)
    return _choice(of, blocks, distance(of.rows(), blocks.real()))


def _fitted(of: _Weights, problem: Problem) -> Choice[Blocks]:
    blocks = blockwise.compensated(problem.wanted, problem.hessian, of.form())
    return _choice(of, blocks, problem.loss(blocks.real().astype(np.float64).reshape(problem.wanted.shape)))


def _choice(of: _Weights, blocks: Blocks, error: float) -> Choice[Blocks]:
    return Choice(Note(g.layer(of.node), True, _words(of, blocks, error)), blocks, of.shaped(blocks.real()))


def _without_samples(of: _Weights) -> Blocks:
    """The nearest codes; where all inputs have one sign, codes whose errors cancel in the sum of each output."""
    rows, form = of.rows(), of.form()
    linear = of.node.op_type in ("Conv", "Gemm", "MatMul") and all(_one_sign(n.inputs[0]) for n in _readers(of))
    if not linear or of.options.rounding == "nearest" or rows.shape[1] > WIDEST:
        return blockwise.nearest(rows, form)
    return blockwise.compensated(rows[None], assignment.presumed(1, rows.shape[1]), form)


def _readers(of: _Weights) -> list[ir.Node]:
    return [use.node for use in of.value.uses()]


def _one_sign(value: ir.Value | None) -> bool:
    """Whether no number of a value is below 0; of the model's inputs that is presumed, as it holds for pixels."""
    node = None if value is None else value.producer()
    if node is None or node.op_type in _ONE_SIGN:
        return value is not None
    if node.op_type == "Clip":
        low = g.scalar(node.inputs[1]) if len(node.inputs) > 1 else g.number(node, "min", None)
        return low is not None and low >= 0
    return node.op_type in _KEEPING and _one_sign(node.inputs[0])


def _write(work: ir.Model, done: Mapping[_Weights, Blocks], names: g.Names) -> dict[str, str]:
    """Put the codes into the graph; gives the session entries that they want."""
    graph, config = work.graph, dict[str, str]()
    products, packer = Products(graph, names), Packer(graph, names)
    for of, blocks in done.items():
        own = of.options
        if not of.products or own.form == "packed":
            of.value.replace_all_uses_with(unpacked(packer, blocks, of.array.shape, of.axis or 0))
        for node in of.products if own.form == "nbits" else ():
            products.nbits(node, blocks, integer=own.compute == "int8")
            work.opset_imports[DOMAIN] = 1
        for node in of.products if own.form == "qdq" else ():
            products.qdq(node, blocks)
            work.ir_version = max(work.ir_version, IR_VERSION)
            if own.compute == "int8":
                config[_CONFIG] = "4"
        del graph.initializers[str(of.value.name)]
    return config


def _words(of: _Weights, blocks: Blocks, error: float) -> str:
    form = blocks.form
    how = {"nbits": "MatMulNBits", "qdq": "DequantizeLinear"}.get(of.options.form) if of.products else None
    size = int4_forms.size(of.rows().shape, form)
    text = f"int{form.bits} in blocks of {form.block}, {how or 'made float at load'}, error {100 * error:.3g}%"
    return f"{text}, {of.array.nbytes:,} -> {size:,} bytes"


SPEC = StepSpec(
    "weights in 4 bits with a scale for every few inputs, float activations",
    Options,
    apply,
    after=("fold",),
    ops=LINEAR | {"LSTM", "GRU", "RNN", "Gather"},
    final=True,
    large=True,
    float32=True,
)
