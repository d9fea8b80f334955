"""Values whose channels are tied, and how much noise in each channel counts at the end of the model.

Between layers with weights a factor per channel can be taken out of what makes a value and put into what reads it, as
long as everything between is positively homogeneous. Sums tie their terms: one factor per channel for all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.graph.moves import array, number, only_consumer, rank
from edgelathe.compress.weights.problems import grouped

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir
    from numpy.typing import NDArray

_LAYERS = frozenset(("Conv", "Gemm", "MatMul"))
_THROUGH = frozenset(("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Add"))
_MOVES = frozenset(("Flatten", "Reshape"))


@dataclass(frozen=True, eq=False)
class Tied:
    """Values with one factor per channel, the layers that make them and those that read them, in the graph's order."""

    values: tuple[ir.Value, ...]
    makers: tuple[ir.Node, ...]
    readers: tuple[ir.Node, ...]
    channels: int

    @property
    def stored(self) -> tuple[ir.Value, ...]:
        """Those that an integer model rounds: not what a Relu alone reads, nor what only moves."""
        return tuple(v for v in self.values if _is_rounded(v))

    @property
    def is_dense(self) -> bool:
        """Whether all that read it are dense: products, or convolutions of one pixel."""
        return all(n.op_type != "Conv" or _is_one_pixel(n.inputs[0]) for n in self.readers)


def find(graph: ir.Graph, allowed: Callable[[ir.Node], bool]) -> list[Tied]:
    """The sets of tied values of a graph with shapes that layers make and layers read; `allowed` says which nodes."""
    parent: dict[ir.Value, ir.Value] = {}

    def root(value: ir.Value) -> ir.Value:
        while (up := parent.setdefault(value, value)) is not value:
            value = up
        return value

    fixed: list[ir.Value] = list(graph.inputs)
    for node in graph:
        read = [v for v in node.inputs if v is not None and array(v) is None]
        if allowed(node) and is_layer(node):
            fixed += [v for v in (*read, node.outputs[0]) if _leaves(v, graph)]
        elif allowed(node) and _is_through(node, read):
            for value in read:
                parent[root(value)] = root(node.outputs[0])
            fixed += [v for v in (*read, node.outputs[0]) if _leaves(v, graph)]
        else:
            fixed += [*read, *node.outputs]
    bound = {root(v) for v in fixed}
    sets: dict[ir.Value, list[ir.Value]] = {}
    for node in graph:
        for value in node.outputs:
            if root(value) not in bound:
                sets.setdefault(root(value), []).append(value)
    found = (_tied(tuple(values)) for values in sets.values())
    return [t for t in found if t is not None]


def is_layer(node: ir.Node) -> bool:
    """Whether the node is linear in its first input, by constant weights of its own."""
    w = array(node.inputs[1]) if len(node.inputs) > 1 else None
    if (
        node.op_type not in _LAYERS
        or node.domain not in ("", "ai.onnx")
        or w is None
        or array(node.inputs[0]) is not None
    ):
        return False
    if w.dtype != np.float32 or not np.isfinite(w).all() or (node.op_type != "Conv" and w.ndim != 2):
        return False
    if (
        number(node, "transA", 0)
        or number(node, "beta", 1.0) != 1
        or (node.op_type != "Conv" and rank(node.inputs[0]) != 2)
    ):
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return bias is None or ((b := array(bias)) is not None and b.ndim == 1)


def weights_of(node: ir.Node) -> NDArray[np.float64]:
    """The weights of a layer [groups, outputs of one, inputs of one, kernel]."""
    w = grouped(node)
    inputs = array(node.inputs[1]).shape[1] if node.op_type == "Conv" else w.shape[2]  # type: ignore[union-attr]  # a layer's
    return w.reshape(*w.shape[:2], inputs, -1)


def gains(graph: ir.Graph) -> dict[ir.Value, NDArray[np.float64]]:
    """What a variance of one in a value adds to the variance of the outputs: [channels] or [] by value.

    Noise is taken to be independent from number to number: through weights it goes by their squares, half of it
    through a Relu, one part in n of it through a mean of n. Operators of other kinds hand it on as it is.
    """
    out: dict[ir.Value, NDArray[np.float64]] = {v: np.ones(()) for v in graph.outputs}
    for node in reversed(tuple(graph)):
        behind = out.get(node.outputs[0])
        if behind is None:
            continue
        if is_layer(node):
            squares = np.square(weights_of(node)).sum(axis=3)
            count = squares.shape[0] * squares.shape[1]
            own = np.broadcast_to(behind if behind.size == count else behind.mean(), count).reshape(squares.shape[:2])
            gain = np.einsum("go,goc->gc", own, squares).reshape(-1)
        else:
            gain = behind * _passed(node)
        for value in node.inputs[:1] if is_layer(node) else node.inputs:
            if value is not None and array(value) is None:
                before = out.get(value, np.zeros(()))
                same = before.size == gain.size or 1 in (before.size, gain.size)
                out[value] = before + gain if same else before.mean() + gain.mean()
    return out


def _passed(node: ir.Node) -> float:
    if node.op_type == "Relu":
        return 0.5
    if node.op_type == "AveragePool":
        return 1 / math.prod(node.attributes["kernel_shape"].as_ints())
    shape = node.inputs[0].shape if node.op_type == "GlobalAveragePool" and node.inputs[0] is not None else None
    space = [n for n in shape[2:] if isinstance(n, int)] if shape is not None else []
    return 1 / max(math.prod(space), 1)


def _tied(values: tuple[ir.Value, ...]) -> Tied | None:
    """None where no layer makes or reads them, or the number of channels is not the same for all."""
    makers = tuple(n for v in values if (n := v.producer()) is not None and is_layer(n))
    readers = tuple(dict.fromkeys(use.node for v in values for use in v.uses() if is_layer(use.node)))
    counts = {_channels(v) for v in values}
    counts |= {n.shape[0] * n.shape[1] for n in map(weights_of, makers)}
    counts |= {n.shape[0] * n.shape[2] for n in map(weights_of, readers)}
    count = counts.pop()
    return None if counts or count is None or not makers or not readers else Tied(values, makers, readers, count)


def _is_through(node: ir.Node, read: list[ir.Value]) -> bool:
    """Whether a factor per channel goes through: f(s x) = s f(x) for s > 0, and channels stay on axis 1."""
    if node.domain not in ("", "ai.onnx") or len(node.outputs) != 1 or not read:
        return False
    made, shapes = node.outputs[0].shape, [v.shape for v in read]
    if node.op_type in _MOVES:
        first = shapes[0]
        if first is None or made is None or len(made) != 2 or len(first) < 2:
            return False
        return made[1] == first[1] and all(n == 1 for n in list(first)[2:])
    if node.op_type not in _THROUGH:
        return False
    if node.op_type == "Add":
        return len(read) == 2 and all(s is not None and made is not None and list(s) == list(made) for s in shapes)
    return len(read) == 1


def _leaves(value: ir.Value, graph: ir.Graph) -> bool:
    """Whether it is read from outside: as an output, or by a graph within a node."""
    return value.is_graph_output() or any(use.node.graph is not graph for use in value.uses())


def _is_one_pixel(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and all(n == 1 for n in list(value.shape)[2:])


def _channels(value: ir.Value) -> int | None:
    count = value.shape[1] if value.shape is not None and len(value.shape) > 1 else None
    return count if isinstance(count, int) else None


def _is_rounded(value: ir.Value) -> bool:
    reader, maker = only_consumer(value), value.producer()
    moved = maker is not None and maker.op_type in (*_MOVES, "Identity", "MaxPool")
    return not moved and (reader is None or reader.op_type != "Relu")
