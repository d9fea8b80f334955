"""Constants replaced one after the other, each fitted on what its layer reads once those before it are settled.

What the steps of this package share: the form of the graph, which constants are weights and where their channels lie,
and the order in which they are settled. A step says what becomes of one constant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgelathe.compress.graph import moves as g
from edgelathe.compress.graph.canonical import plain_gemm
from edgelathe.compress.graph.equalize import balance
from edgelathe.compress.graph.fold import infer_shapes
from edgelathe.compress.types import Context, Note
from edgelathe.compress.weights import problems
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir

    from edgelathe.compress.weights.problems import Problem
    from edgelathe.model.types import Model

Array = NDArray[np.float64]
_NODES = 200  # bytes of the nodes that make one constant real, about
_PAYS = 0.75  # of its float bytes: what takes more stays float
#: Inputs of the widest layer that second order is for.
WIDEST = 5_000

O = TypeVar("O")  # noqa: E741  # options of the step
C = TypeVar("C")  # what a constant becomes


@dataclass(frozen=True, eq=False)
class Weights(Generic[O]):
    """One constant: where it is first read, its channels' axis (None: all but the last), the options that hold."""

    value: ir.Value
    node: ir.Node
    axis: int | None
    options: O

    @property
    def array(self) -> NDArray[np.float32]:
        """The constant as it is in the graph now."""
        found = g.array(self.value)
        assert found is not None
        return found

    def rows(self) -> Array:
        """[channels, inputs of one], as float64."""
        return self.rows_of(self.array)

    def rows_of(self, w: NDArray[np.float32]) -> Array:
        """[channels, inputs of one] of any values in the shape of the constant."""
        if self.axis is None:
            return w.reshape(-1, w.shape[-1]).astype(np.float64)
        return np.moveaxis(w, self.axis, 0).reshape(w.shape[self.axis], -1).astype(np.float64)

    def shaped(self, rows: NDArray[T]) -> NDArray[T]:
        """The inverse of `rows`, for values of any type."""
        if self.axis is None:
            return rows.reshape(self.array.shape)
        moved = np.moveaxis(self.array, self.axis, 0).shape
        return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, self.axis))


T = TypeVar("T", bound=np.generic)
W = TypeVar("W", bound=Weights)  # type: ignore[type-arg]  # a step's own kind of weights


@dataclass(frozen=True)
class Choice(Generic[C]):
    """What becomes of one constant: `made`, and the float32 values `real` that it stands for; both None: it stays."""

    note: Note
    made: C | None = None
    real: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Ready:
    """A graph to work on.

    Attributes:
        model: it, with constants as initializers, plain Gemm and channels rescaled.
        names: for new values.
        notes: of what was rescaled.
        twin: the same model, kept in float.
        before: the graph of `twin`.
        twins: its node for each node of `model`.
    """

    model: ir.Model
    names: g.Names
    notes: tuple[Note, ...]
    twin: Model
    before: ir.Model
    twins: Mapping[ir.Node, ir.Node]


def ready(model: Model, equalize: str, context: Context, *, finite: bool = False) -> Ready:
    """Bring the graph into the form that constants are settled in; `equalize` as `balance` takes it.

    Raises UserError for a model that is quantized already, and where `finite` for weights that are not.
    """
    import onnx_ir.passes.common as passes

    work = onnx_model.to_ir(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(work)
    g.refuse_quantized(work.graph, model.name)
    if finite:
        g.refuse_not_finite(work.graph, model.name)
    infer_shapes(work)
    names = g.Names(work.graph)
    for node in g.standard_nodes(work.graph):
        if node.op_type == "Gemm":
            plain_gemm(node, names)
    notes = tuple(balance(work.graph, names, equalize, context.overrides))
    twin = onnx_model.from_ir(work, model.name)
    before = onnx_model.to_ir(twin)
    infer_shapes(before)
    return Ready(work, names, notes, twin, before, dict(zip(work.graph, before.graph, strict=True)))


def constants(
    graph: ir.Graph, places: Mapping[str, Sequence[int]]
) -> Iterator[tuple[ir.Node, int, ir.Value, NDArray[Any]]]:
    """Each constant of two axes or more that an operator reads at one of its `places`, once, where it is first read."""
    seen = set[object]()
    for node in g.standard_nodes(graph):
        for index in places.get(node.op_type, ()):
            value = node.inputs[index] if len(node.inputs) > index else None
            w = g.array(value)
            if value is not None and w is not None and w.ndim >= 2 and value not in seen:
                seen.add(value)
                yield node, index, value, w


def axis_of(node: ir.Node, index: int, dims: int) -> int | None:
    """The axis of output channels in the weights at input `index`; None: there is no such axis."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and g.number(node, "transB", 0)):
        return 0
    if node.op_type == "Gemm" or (node.op_type == "MatMul" and index == 1 and dims == 2):
        return 1
    return 1 if node.op_type == "ConvTranspose" and g.number(node, "group", 1) == 1 else None


def is_product(node: ir.Node) -> bool:
    """Whether it multiplies a matrix by weights and adds at most a bias."""
    if node.op_type == "MatMul":
        return g.rank(node.inputs[1]) == 2 and g.rank(node.inputs[0]) != 1
    scaled = any(g.number(node, k, 1.0) != 1.0 for k in ("alpha", "beta"))
    return node.op_type == "Gemm" and not scaled and not g.number(node, "transA", 0)


def is_fitted(of: Weights[O]) -> bool:
    """Whether second order can be had from what the layer reads: it alone reads the weights, its bias is its own."""
    node = of.node
    if node.op_type != "Conv" and not (is_product(node) and of.axis is not None):
        return False
    bias = node.inputs[2] if node.op_type != "MatMul" and len(node.inputs) > 2 else None
    own_bias = bias is None or (g.array(bias) is not None and g.rank(bias) == 1)
    inputs = of.array.size // max(of.array.shape[of.axis or 0], 1)
    return own_bias and len(of.value.uses()) == 1 and inputs <= WIDEST and g.array(node.inputs[0]) is None


def unpaid(of: Weights[O], size: int) -> Choice[Any] | None:
    """That the constant stays float, where `size` bytes and the nodes around them do not pay."""
    whole = of.array.nbytes
    if size + _NODES < _PAYS * whole:
        return None
    return Choice(Note(g.layer(of.node), False, f"stays float: {whole:,} -> {size:,} bytes and nodes"))


def settle(
    on: Ready,
    found: Sequence[W],
    context: Context,
    at_once: Callable[[W], Choice[C] | None],
    fitted: Callable[[W, Problem], Choice[C]],
) -> tuple[dict[W, C], list[Note]]:
    """Choose what each constant becomes, and put the values that it stands for in its place; with notes, as `found`.

    `at_once` chooses without samples, or gives None for those that `fitted` chooses, layer after layer; their biases
    take the mean error.
    """
    import onnx_ir as ir

    chosen: dict[W, Choice[C]] = {}
    data = context.data

    def take(of: W, choice: Choice[C]) -> None:
        chosen[of] = replace(choice, real=None)  # all of them at once would be the model's float bytes once more
        if choice.real is not None and data is not None:  # else no layer runs on them before they are coded
            of.value.const_value = ir.tensor(choice.real, name=of.value.name)

    later: dict[ir.Node, W] = {}
    for of in found:
        choice = at_once(of)
        if choice is None:
            later[of.node] = of
        else:
            take(of, choice)
    pairs = [problems.Pair(n, on.twins[n]) for n in later]
    solved = problems.problems(on.model, on.before, pairs, data, context.seed) if data is not None and pairs else ()
    for pair, problem in solved:
        of = later[pair.node]
        choice = fitted(of, problem)
        take(of, choice)
        if choice.real is not None:
            bias = problem.bias(of.rows_of(choice.real).reshape(problem.wanted.shape))
            if bias is not None:
                g.set_constant(pair.node, 2, bias, on.names)
        del problem  # before that of the next layer is there
    done = {of: chosen[of].made for of in found}
    return {of: made for of, made in done.items() if made is not None}, [chosen[of].note for of in found]


def distance(want: Array, have: NDArray[Any]) -> float:
    """Size of the weights' error relative to theirs."""
    size = float(np.linalg.norm(want))
    return float(np.linalg.norm(want - have)) / size if size else 0.0
