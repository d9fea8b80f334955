"""`int4`: weights in 4 bits with a scale for every few inputs, activations in float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.graph import moves as g
from edgelathe.compress.graph import opset
from edgelathe.compress.graph.canonical import plain_gemm
from edgelathe.compress.graph.equalize import balance
from edgelathe.compress.graph.fold import infer_shapes
from edgelathe.compress.graph.packed import Packer
from edgelathe.compress.integer import qdq
from edgelathe.compress.types import LINEAR, Applied, Context, Note, StepSpec, option
from edgelathe.compress.weight_only import int4_forms
from edgelathe.compress.weight_only.int4_forms import DOMAIN, IR_VERSION, OPSET, Products, unpacked
from edgelathe.compress.weights import assignment, blockwise, problems
from edgelathe.compress.weights.blockwise import Blocks, Form
from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.weights.second_order import Array
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
_NODES = 200  # bytes of a layer's new nodes, about
_PAYS = 0.75  # of its float bytes: what takes more stays float
_WIDEST = 5_000  # inputs of the widest layer that second order is for
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
class _Weights:
    """One constant: where it is first read, its rows' axis, and the products that read it, where nothing else does."""

    value: ir.Value
    node: ir.Node
    axis: int
    options: Options
    products: tuple[ir.Node, ...]

    @property
    def array(self) -> NDArray[np.float32]:
        found = g.array(self.value)
        assert found is not None
        return found

    def rows(self) -> Array:
        """[rows, inputs]: of recurrent layers and tables all axes but the last count rows."""
        w = self.array.astype(np.float64)
        if self.axis < 0:
            return w.reshape(-1, w.shape[-1])
        return np.moveaxis(w, self.axis, 0).reshape(w.shape[self.axis], -1)

    def shaped(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The inverse of `rows`."""
        if self.axis < 0:
            return rows.reshape(self.array.shape)
        moved = np.moveaxis(self.array, self.axis, 0).shape
        return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, self.axis))

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
    import onnx_ir.passes.common as passes

    if options.rounding == "second-order" and context.data is None:
        raise UserError("int4: rounding", "second-order needs calibration data", "give them with --data")
    standard = "qdq" in (options.form, *(v.get("form") for v in context.overrides.values()))
    model, raised = opset.at_least(model, OPSET if standard else _LOWEST)
    work = onnx_model.to_ir(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(work)
    g.refuse_quantized(work.graph, model.name)
    g.refuse_not_finite(work.graph, model.name)
    infer_shapes(work)
    names = g.Names(work.graph)
    for node in g.standard_nodes(work.graph):
        if node.op_type == "Gemm":
            plain_gemm(node, names)
    notes = [*raised, *balance(work.graph, names, options.equalize, context.overrides)]
    found = list(_found(work.graph, options, context, notes))
    twin = onnx_model.from_ir(work, model.name)
    done = _settle(work, twin, found, context, names, notes)
    if not done:
        return Applied(model, (*notes, Note("model", False, "no weights that pay")))
    config = _write(work, done, names)
    qdq.finish(work, names)
    return Applied(onnx_model.from_ir(work, model.name), tuple(notes), config, twin)


def _found(graph: ir.Graph, options: Options, context: Context, notes: list[Note]) -> Iterator[_Weights]:
    seen = set[Any]()
    for node in g.standard_nodes(graph):
        for index in _PLACES.get(node.op_type, ()):
            value = node.inputs[index] if len(node.inputs) > index else None
            w = g.array(value)
            if value is None or w is None or w.ndim < 2 or value in seen:
                continue
            seen.add(value)
            readers = [use.node for use in value.uses()]
            own = g.options_for(options, node, context.overrides)
            if own is None or any(g.skips(n, context.overrides) for n in readers):
                notes.append(Note(g.layer(node), False, "skipped by the recipe"))
            elif w.dtype != np.float32 or value.is_graph_output():
                what = "an output of the model" if value.is_graph_output() else str(w.dtype)
                notes.append(Note(g.layer(node), False, f"its weights are {what}"))
            else:
                yield _Weights(value, node, _axis(node, w.ndim), own, _products(value))


def _axis(node: ir.Node, dims: int) -> int:
    """The axis of the weights that counts outputs; -1: all but the last do."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and g.number(node, "transB", 0)):
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if g.number(node, "group", 1) == 1 else 0
    return 1 if node.op_type in ("Gemm", "MatMul") and dims == 2 else -1


def _products(value: ir.Value) -> tuple[ir.Node, ...]:
    """The MatMul and Gemm that read the weights, all in the same way; none where another reads them too."""
    nodes = tuple(use.node for use in value.uses())
    plain = all(use.idx == 1 and _is_product(use.node) for use in value.uses())
    return nodes if plain and len({_axis(n, 2) for n in nodes}) == 1 else ()


def _is_product(node: ir.Node) -> bool:
    if node.op_type == "MatMul":
        return g.rank(node.inputs[1]) == 2 and g.rank(node.inputs[0]) != 1
    scaled = any(g.number(node, k, 1.0) != 1.0 for k in ("alpha", "beta"))
    return node.op_type == "Gemm" and not scaled and not g.number(node, "transA", 0)


def _settle(
    work: ir.Model, twin: Model, found: list[_Weights], context: Context, names: g.Names, notes: list[Note]
) -> dict[_Weights, Blocks]:
    """Choose codes for each constant, those first that need no samples; what they stand for takes its place."""
    import onnx_ir as ir

    before = onnx_model.to_ir(twin)
    infer_shapes(before)
    twins = dict(zip(work.graph, before.graph, strict=True))
    done: dict[_Weights, Blocks] = {}
    told: dict[_Weights, Note] = {}

    def take(of: _Weights, blocks: Blocks, error: float) -> None:
        real = of.shaped(blocks.real())
        of.value.const_value = ir.tensor(real, name=of.value.name)
        done[of] = blocks
        told[of] = Note(g.layer(of.node), True, _words(of, blocks, error))

    later: dict[ir.Node, _Weights] = {}
    for of in found:
        size, whole = int4_forms.size(of.rows().shape, of.form()), of.array.nbytes
        if size + _NODES >= _PAYS * whole:
            told[of] = Note(g.layer(of.node), False, f"stays float: {whole:,} -> {size:,} bytes and nodes")
        elif context.data is not None and of.options.rounding != "nearest" and _is_learned(of):
            later[of.node] = of
        else:
            blocks = _without_samples(of)
            take(of, blocks, _distance(of.rows(), blocks.real()))
    pairs = [problems.Pair(n, twins[n]) for n in later]
    solved = problems.problems(work, before, pairs, context.data, context.seed) if context.data and pairs else ()
    for pair, problem in solved:
        of = later[pair.node]
        blocks = blockwise.compensated(problem.wanted, problem.hessian, of.form())
        real = blocks.real().astype(np.float64).reshape(problem.wanted.shape)
        take(of, blocks, problem.loss(real))
        bias = problem.bias(real)
        if bias is not None:
            g.set_constant(pair.node, 2, bias, names)
    notes += [told[of] for of in found]
    return {of: done[of] for of in found if of in done}


def _without_samples(of: _Weights) -> Blocks:
    """The nearest codes; where all inputs have one sign, codes whose errors cancel in the sum of each output."""
    rows, form = of.rows(), of.form()
    linear = of.node.op_type in ("Conv", "Gemm", "MatMul") and all(_one_sign(n.inputs[0]) for n in _readers(of))
    if not linear or of.options.rounding == "nearest" or rows.shape[1] > _WIDEST:
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


def _is_learned(of: _Weights) -> bool:
    """Whether second order can be had from what the layer reads."""
    node, bias = of.node, None
    if node.op_type in ("Conv", "Gemm"):
        bias = node.inputs[2] if len(node.inputs) > 2 else None
    elif node.op_type != "MatMul":
        return False
    own_bias = bias is None or (g.array(bias) is not None and g.rank(bias) == 1)
    alone = len(of.value.uses()) == 1 and (node.op_type == "Conv" or len(of.products) == 1)
    return own_bias and alone and of.rows().shape[1] <= _WIDEST and g.array(node.inputs[0]) is None


def _write(work: ir.Model, done: Mapping[_Weights, Blocks], names: g.Names) -> dict[str, str]:
    """Put the codes into the graph; gives the session entries that they want."""
    graph, config = work.graph, dict[str, str]()
    products, packer = Products(graph, names), Packer(graph, names)
    for of, blocks in done.items():
        own = of.options
        if not of.products or own.form == "packed":
            of.value.replace_all_uses_with(unpacked(packer, blocks, of.array.shape, max(of.axis, 0)))
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


def _distance(want: Array, have: NDArray[np.float32]) -> float:
    """Size of the weights' error relative to theirs."""
    size = float(np.linalg.norm(want))
    return float(np.linalg.norm(want - have)) / size if size else 0.0


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
)
