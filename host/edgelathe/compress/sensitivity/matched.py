"""The same layer in a float model and in what became of it: which two values are to be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.graph.moves import array, layer, number, only_consumer, scalar
from edgelathe.compress.graph.packed import bits_of
from edgelathe.compress.types import LINEAR

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

_CLAMPS = frozenset(("Relu", "Clip"))
#: What steps fold into the layer before it, or let the clipping of a grid do.
_VANISHING = _CLAMPS | {"BatchNormalization", "Add", "Sub", "Mul", "Div", "Identity", "Dropout", "Cast"}


@dataclass(frozen=True)
class Span:
    """The real numbers that a quantized value can hold, half a step beyond its ends included."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Match:
    """One layer in both models.

    Attributes:
        layer: the original node's name.
        op: its operator in the float model.
        axis: of the channels in its output.
        before: name of the float model's value.
        after: name of the compressed model's, as stored and real again.
        raw: name of that value before it is rounded, None where it is not.
        clamp: what a clamp does to it that the grid does now: (low, high), either None.
        span: of the grid, None where the value is not quantized.
        weight_ratio: largest channel of the weights over the middle one, where all have one scale; else None.
        bits: of each weight in the file, where it has fewer than 8; else None.
        sources: the layers that it reads, through what lies between.
    """

    layer: str
    op: str
    axis: int
    before: str
    after: str
    raw: str | None
    clamp: tuple[float | None, float | None]
    span: Span | None
    weight_ratio: float | None
    bits: int | None
    sources: tuple[str, ...]


def matches(before: ir.Graph, after: ir.Graph) -> Iterator[Match]:
    """Layers with weights that have the same name in both graphs, in the float model's order."""
    there = {layer(node): node for node in after}
    found = {node: there[layer(node)] for node in before if node.op_type in LINEAR and layer(node) in there}
    for node, twin in found.items():
        if node.outputs[0].name and twin.outputs[0].name:
            yield _match(node, twin, there, _sources(node, found))


def _sources(node: ir.Node, layers: Mapping[ir.Node, ir.Node]) -> tuple[str, ...]:
    seen, todo = set[Any](), [node]
    for at in todo:
        makers = {v.producer() for v in at.inputs if v is not None} - seen - {None}
        seen |= makers
        todo += [m for m in makers if m is not None and m not in layers]
    return tuple(layer(n) for n in layers if n in seen)


def _match(node: ir.Node, twin: ir.Node, there: Mapping[str, ir.Node], sources: tuple[str, ...]) -> Match:
    f, a = node.outputs[0], twin.outputs[0]
    low: float | None = None
    high: float | None = None
    while True:
        reader, other = only_consumer(f), only_consumer(a)
        if reader is None or len(reader.outputs) != 1 or not _one_source(reader):
            break
        if layer(reader) not in there and reader.op_type in _VANISHING:
            f = reader.outputs[0]
            if reader.op_type in _CLAMPS:
                low, high = _bounds(reader)
        elif other is not None and layer(other) == layer(reader) and reader.op_type in _CLAMPS:
            f, a, low, high = reader.outputs[0], other.outputs[0], None, None
        else:
            break
    stored, span = _stored(a)
    axis = 1 if node.op_type in ("Conv", "ConvTranspose") else -1
    return Match(
        layer(node), node.op_type, axis, str(f.name), str((stored or a).name), str(a.name) if stored else None,
        (low, high), span, _weight_ratio(twin), _bits(node, twin), sources,
    )  # fmt: skip


def _one_source(node: ir.Node) -> bool:
    """Whether a single computed value goes in: a sum of two branches is no part of the layer before it."""
    return sum(v is not None and array(v) is None for v in node.inputs) == 1


def _bounds(node: ir.Node) -> tuple[float | None, float | None]:
    if node.op_type == "Relu":
        return 0.0, None
    low, high = (
        scalar(node.inputs[i]) if len(node.inputs) > i else number(node, k, None) for i, k in ((1, "min"), (2, "max"))
    )
    return low, high


def _stored(value: ir.Value) -> tuple[ir.Value | None, Span | None]:
    """The value behind QuantizeLinear and DequantizeLinear, and what its grid can hold."""
    for use in value.uses():
        node = use.node
        if node.op_type != "QuantizeLinear" or use.idx != 0:
            continue
        scale, zero = (array(node.inputs[i]) if len(node.inputs) > i else None for i in (1, 2))
        for reader in node.outputs[0].uses():
            if reader.node.op_type == "DequantizeLinear" and scale is not None and scale.size == 1:
                return reader.node.outputs[0], _span(float(scale.reshape(())), zero)
    return None, None


def _span(scale: float, zero: NDArray[Any] | None) -> Span:
    kind = np.dtype(np.uint8) if zero is None else zero.dtype
    if kind.kind not in "iu":
        return Span(-np.inf, np.inf)
    at, ends = 0 if zero is None else int(zero.reshape(-1)[0]), np.iinfo(kind)
    return Span((int(ends.min) - at - 0.5) * scale, (int(ends.max) - at + 0.5) * scale)


def _weight_ratio(node: ir.Node) -> float | None:
    """How unlike the channels of weights with one scale are: largest |w| of the widest over that of the middle one."""
    source = node.inputs[1].producer() if len(node.inputs) > 1 and node.inputs[1] is not None else None
    if source is None or source.op_type != "DequantizeLinear":
        return None
    q, scale = array(source.inputs[0]), array(source.inputs[1])
    if q is None or scale is None or scale.size != 1 or q.ndim < 2:
        return None
    axis = 0 if node.op_type == "Conv" or number(node, "transB", 0) else 1
    return spread(np.abs(q.astype(np.float64)).max(axis=tuple(i for i in range(q.ndim) if i != axis)))


def _bits(node: ir.Node, twin: ir.Node) -> int | None:
    """Of the weights of a quantized layer, packed in the file."""
    source = twin.inputs[1].producer() if len(twin.inputs) > 1 and twin.inputs[1] is not None else None
    w = array(node.inputs[1]) if len(node.inputs) > 1 else None
    if source is None or source.op_type != "DequantizeLinear" or w is None:
        return None
    found = bits_of(source.inputs[0], w.size)
    return found if found is not None and found < 8 else None


def spread(largest: NDArray[Any]) -> float:
    """The widest channel over the middle one; channels that hold only zeros do not count."""
    there = largest[largest > 0]
    return float(there.max() / np.median(there)) if len(there) else 1.0
