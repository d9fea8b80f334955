"""`equalize`: channels between two layers are rescaled so that one scale a tensor fits all of them.

Cross-layer equalization (Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019,
4.1): what lies between the layers is positively homogeneous, f(s x) = s f(x) for s > 0, so a channel may be divided by
s in the first layer and multiplied by it in the second. The function stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.graph.moves import (
    Names,
    array,
    layer,
    number,
    only_consumer,
    set_constant,
    skips,
    standard_nodes,
)
from edgelathe.compress.types import LINEAR, Applied, Context, Note, StepSpec, option
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.model.types import Model

_HOMOGENEOUS = frozenset(
    ("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Flatten", "Reshape")
)
_ROUNDS = 50
# Channels that differ more than this lose more than 5 of 8 bits; below it, equalizing changes nothing measurable.
_UNBALANCED = 32.0


@dataclass(frozen=True)
class Options:
    """Options of `equalize`."""

    spread: float = option(1.0, "leave pairs of layers whose channels differ by less than this factor", low=1.0)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two layers and how often each channel of the first stands in a row among the inputs of the second."""

    first: ir.Node
    second: ir.Node
    repeat: int


def apply(model: Model, options: Options, context: Context) -> Applied:
    """Equalize every pair of layers that allows it; data are not needed."""
    ir_model = onnx_model.to_ir(model)
    notes = equalize(
        ir_model.graph,
        Names(ir_model.graph),
        lambda n: not skips(n, context.overrides),
        options.spread,
    )
    return Applied(onnx_model.from_ir(ir_model, model.name), notes or (Note("model", False, "no pair of layers"),))


def balance(graph: ir.Graph, names: Names, mode: str, overrides: Mapping[str, Mapping[str, Any]]) -> tuple[Note, ...]:
    """What integer steps do first: `always` equalizes all pairs, `never` none, else unbalanced ones; notes of those."""
    if mode == "never":
        return ()
    spread = 1.0 if mode == "always" else _UNBALANCED
    return tuple(n for n in equalize(graph, names, lambda node: not skips(node, overrides), spread) if n.done)


def equalize(graph: ir.Graph, names: Names, allowed: Callable[[ir.Node], bool], spread: float) -> tuple[Note, ...]:
    """Equalize in place the pairs whose channels differ by more than `spread`; a note per pair."""
    pairs = [p for p in find(graph) if allowed(p.first) and allowed(p.second)]
    spreads = [_spread(p, {n: _as_float64(n) for n in (p.first, p.second)}) for p in pairs]
    chosen = [p for p, s in zip(pairs, spreads, strict=True) if s > spread]
    weights = {n: _as_float64(n) for p in chosen for n in (p.first, p.second)}
    total = {id(p): np.ones(_channels(p.first)[0]) for p in chosen}
    for _ in range(_ROUNDS):
        moved = 1.0
        for pair in chosen:
            s = _factors(pair, weights)
            _scale(pair, weights, s)
            total[id(pair)] *= s
            moved = max(moved, float(np.max(np.maximum(s, 1 / s))))
        if moved < 1.001:
            break
    for node in dict.fromkeys(n for p in chosen for n in (p.first, p.second)):
        set_constant(node, 1, weights[node].astype(np.float32), names)
    for pair in chosen:
        bias = array(pair.first.inputs[2]) if len(pair.first.inputs) > 2 else None
        if bias is not None:
            set_constant(pair.first, 2, (bias / total[id(pair)]).astype(np.float32), names)
    return tuple(
        Note(layer(p.first), p in chosen, f"channels to {layer(p.second)} differed {s:.3g} times")
        for p, s in zip(pairs, spreads, strict=True)
    )


def find(graph: ir.Graph) -> list[Pair]:
    """Pairs of layers with constant weights and nothing but homogeneous operators between them."""
    out = []
    for node in standard_nodes(graph):
        if not _is_layer(node):
            continue
        reader = only_consumer(node.outputs[0])
        while reader is not None and reader.op_type in _HOMOGENEOUS and not reader.domain and _keeps_channels(reader):
            reader = only_consumer(reader.outputs[0])
        if reader is None or not _is_layer(reader) or array(reader.inputs[0]) is not None:
            continue
        channels, inputs = _channels(node)[0], _channels(reader)[1]
        if inputs % channels == 0:
            out.append(Pair(node, reader, inputs // channels))
    return out


def _is_layer(node: ir.Node) -> bool:
    w = array(node.inputs[1]) if len(node.inputs) > 1 else None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if (
        node.domain
        or node.op_type not in ("Conv", "Gemm")
        or w is None
        or w.dtype != np.float32
        or not np.isfinite(w).all()
    ):
        return False
    if node.op_type == "Gemm" and (number(node, "transA", 0) or number(node, "beta", 1.0) != 1):
        return False
    return bias is None or (array(bias) is not None and array(bias).ndim == 1)  # type: ignore[union-attr]  # not None


def _keeps_channels(node: ir.Node) -> bool:
    """Whether axis 1 stays the channels, or becomes rows of equal channels (from NCHW to features)."""
    if node.op_type == "Flatten":
        return bool(number(node, "axis", 1) == 1)
    if node.op_type == "Reshape":
        shape = array(node.inputs[1])
        return shape is not None and shape.shape == (2,) and shape[0] != -1
    return node.op_type != "MaxPool" or len(node.outputs) == 1


def _channels(node: ir.Node) -> tuple[int, int]:
    """Output and input channels of a layer."""
    w = array(node.inputs[1])
    assert w is not None
    if node.op_type == "Conv":
        return int(w.shape[0]), int(w.shape[1] * number(node, "group", 1))
    rows, columns = (int(n) for n in w.shape)
    return (rows, columns) if number(node, "transB", 0) else (columns, rows)


def _as_float64(node: ir.Node) -> NDArray[np.float64]:
    w = array(node.inputs[1])
    assert w is not None
    return w.astype(np.float64)


def _rows(node: ir.Node, w: NDArray[np.float64]) -> NDArray[np.float64]:
    """A view [groups, outputs of a group, inputs of a group, kernel] of the weights."""
    if node.op_type == "Gemm":
        return np.asarray(w if number(node, "transB", 0) else w.T)[None, :, :, None]
    group = int(number(node, "group", 1))
    return w.reshape(group, w.shape[0] // group, w.shape[1], -1)


def _output_range(node: ir.Node, w: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.abs(_rows(node, w)).max(axis=(2, 3)).reshape(-1), np.float64)


def _input_range(node: ir.Node, w: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.abs(_rows(node, w)).max(axis=(1, 3)).reshape(-1), np.float64)


def _factors(pair: Pair, weights: dict[ir.Node, NDArray[np.float64]]) -> NDArray[np.float64]:
    """s = sqrt(r1 * r2) / r2 per channel (equation 11); 1 for channels that are zero on one side."""
    first = _output_range(pair.first, weights[pair.first])
    second = _input_range(pair.second, weights[pair.second]).reshape(-1, pair.repeat).max(axis=1)
    alive = (first > 0) & (second > 0)
    return np.asarray(np.sqrt(np.where(alive, first, 1) / np.where(alive, second, 1)), np.float64)


def _spread(pair: Pair, weights: dict[ir.Node, NDArray[np.float64]]) -> float:
    s = _factors(pair, weights)
    return float(s.max() / s.min())


def _scale(pair: Pair, weights: dict[ir.Node, NDArray[np.float64]], s: NDArray[np.float64]) -> None:
    first, second = _rows(pair.first, weights[pair.first]), _rows(pair.second, weights[pair.second])
    first /= s.reshape(first.shape[0], first.shape[1], 1, 1)
    second *= np.repeat(s, pair.repeat).reshape(second.shape[0], 1, second.shape[2], 1)


SPEC = StepSpec(
    "rescale channels between layers so that one scale fits them all",
    Options,
    apply,
    after=("fold",),
    ops=LINEAR,
    large=True,
)
