"""Where channels go, operator by operator: one table, one function per family of operators.

A rule reads the channels of the node's inputs from the walk and writes those of its outputs. What it cannot prove it
refuses: then the channels stay whole, with the reason. An operator without a row is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.graph import moves as g
from edgelathe.compress.pruning import channel_layers as layers
from edgelathe.compress.pruning.channels import Channels, Count, Slices, Walk, lengths, refuse

if TYPE_CHECKING:
    import onnx_ir as ir

Rule = Callable[["ir.Node", Walk], None]


def same(node: ir.Node, walk: Walk) -> None:
    """Elementwise on one input: the channels pass."""
    source = node.inputs[0]
    if source in walk.at:
        walk.at[node.outputs[0]] = walk.at[source]


def elementwise(node: ir.Node, walk: Walk) -> None:
    """Several inputs with broadcasting: channels at the same place are tied, constants have slices for them."""
    inputs = [v for v in node.inputs if v is not None]
    shapes = [lengths(v) for v in inputs]
    found = [(v, walk.at[v]) for v in inputs if v in walk.at]
    if not found:
        return None
    if any(s is None for s in shapes):
        return refuse(node, walk, "has inputs of unknown shape")
    ranks = {v: len(s) for v, s in zip(inputs, shapes, strict=True) if s is not None}
    lead = max(found, key=lambda f: len(f[1].ids))[1]
    back = {c.axis - ranks[v] for v, c in found}
    if len(back) > 1:
        return refuse(node, walk, "mixes channels along different axes")
    axis = back.pop()
    plan: list[Slices] = []
    for i, value in enumerate(node.inputs):
        if value is None:
            continue
        shape = lengths(value) or []
        length = shape[axis] if len(shape) >= -axis else 1
        if length == 1 and len(lead.ids) > 1:
            walk.stay([value], f"{node.op_type} '{g.layer(node)}' spreads its one channel over several")
        elif value in walk.at:
            if len(walk.at[value].ids) != len(lead.ids):
                return refuse(node, walk, "ties widths that differ")
            walk.tie(lead.ids, walk.at[value].ids)
        elif length != 1:
            if g.array(value) is None or length != len(lead.ids):
                return refuse(node, walk, f"ties them to '{value.name}', which cannot be cut")
            plan.append(Slices(node, i, len(shape) + axis, lead.ids))
    walk.slices.extend(plan)
    walk.at[node.outputs[0]] = Channels(max(ranks.values()) + axis, lead.ids)
    return None


def concat(node: ir.Node, walk: Walk) -> None:
    """Concat along the channels puts them in a row; along another axis it ties them."""
    found = [walk.of(v) for v in node.inputs]
    shapes = [lengths(v) for v in node.inputs]
    first = next((c for c in found if c is not None), None)
    if first is None:
        return None
    rank = next((len(s) for s in shapes if s), 0)
    axis = g.number(node, "axis", 1) % rank if rank else -1
    if any(s is None for s in shapes) or any(c is not None and c.axis != first.axis for c in found):
        return refuse(node, walk, "mixes channels along different axes, or has inputs of unknown shape")
    if axis != first.axis:
        if any(c is None or len(c.ids) != len(first.ids) for c in found):
            return refuse(node, walk, "ties them to a value that cannot be cut")
        for c in found[1:]:
            walk.tie(first.ids, c.ids)  # type: ignore[union-attr]  # none is None: checked above
        walk.at[node.outputs[0]] = first
        return None
    parts = []
    for c, shape in zip(found, shapes, strict=True):
        length = shape[axis] if shape else None
        if c is None and length is None:
            return refuse(node, walk, "has an input of unknown length")
        if c is None:
            fixed = walk.new(length or 0)
            walk.stays.append((fixed, "they come from a value that cannot be cut"))
            parts.append(fixed)
        else:
            parts.append(c.ids)
    walk.at[node.outputs[0]] = Channels(axis, np.concatenate(parts))
    return None


def reshape(node: ir.Node, walk: Walk) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze: followed on the real lengths, where one output axis holds the channels."""
    x = walk.of(node.inputs[0])
    if x is None:
        return None
    before, after = lengths(node.inputs[0]), lengths(node.outputs[0])
    if before is None or after is None:
        return refuse(node, walk, "has unknown lengths")
    if before.count(None) > 1 or before.count(None) != after.count(None):
        return refuse(node, walk, "has unknown lengths")
    a, b = ([1 if d is None else d for d in s] for s in (before, after))
    if np.prod(a) != np.prod(b) or a[x.axis] != len(x.ids):
        return refuse(node, walk, "has unknown lengths")
    line = [1] * len(a)
    line[x.axis] = -1
    spread = np.broadcast_to(x.ids.reshape(line), a).reshape(b)
    for axis in range(len(b)):
        lines = np.moveaxis(spread, axis, 0).reshape(b[axis], -1)
        if b[axis] >= len(x.ids) and (lines == lines[:, :1]).all():
            return _reshaped(node, walk, x.axis, Channels(axis, lines[:, 0].copy()))
    return refuse(node, walk, "mixes channels with other axes")


def _reshaped(node: ir.Node, walk: Walk, axis: int, out: Channels) -> None:
    if node.op_type == "Reshape":
        target = _target(node.inputs[1])
        if target is None or len(target) <= out.axis or target[out.axis] is None:
            return refuse(node, walk, "goes to a shape that is computed")
        if target[out.axis] == 0 and axis != out.axis:
            return refuse(node, walk, "copies a length from another axis")
        if (target[out.axis] or 0) > 0:
            if g.array(node.inputs[1]) is None:
                return refuse(node, walk, "goes to a shape that is computed")
            walk.counts.append(Count(node, 1, out.axis, out.ids))
    walk.at[node.outputs[0]] = out
    return None


def _target(value: ir.Value | None) -> list[int | None] | None:
    """A target shape: numbers where they are constant, None where computed (a batch taken from another shape)."""
    data = g.array(value)
    if data is not None:
        return [int(d) for d in data.reshape(-1)]
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Concat":
        return None
    out: list[int | None] = []
    for part in node.inputs:
        piece = g.array(part)
        if piece is not None:
            out.extend(int(d) for d in piece.reshape(-1))
        elif lengths(part) == [1]:
            out.append(None)
        else:
            return None
    return out


def shape_of(node: ir.Node, walk: Walk) -> None:
    """Shape: harmless where only lengths other than that of the channel axis are picked from it."""
    x, shape = walk.of(node.inputs[0]), lengths(node.inputs[0])
    if x is None:
        return None
    for use in node.outputs[0].uses():
        pick = g.array(use.node.inputs[1]) if use.node.op_type == "Gather" and shape is not None else None
        if pick is None or x.axis in pick.reshape(-1) % len(shape or [1]) or "start" in node.attributes:
            return refuse(node, walk, "takes their number")
    return None


def transpose(node: ir.Node, walk: Walk) -> None:
    """Transpose: the axis moves."""
    x, shape = walk.of(node.inputs[0]), lengths(node.inputs[0])
    if x is None:
        return None
    perm = g.ints(node, "perm") or (list(range(len(shape)))[::-1] if shape else None)
    if perm is None:
        return refuse(node, walk, "has an input of unknown shape")
    walk.at[node.outputs[0]] = Channels(perm.index(x.axis), x.ids)
    return None


def pool(node: ir.Node, walk: Walk) -> None:
    """Pooling over the space behind axis 1."""
    x = walk.of(node.inputs[0])
    if x is None:
        return None
    if x.axis != 1 or any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        return refuse(node, walk, "pools over them, or gives their places")
    walk.at[node.outputs[0]] = x
    return None


def reduce(node: ir.Node, walk: Walk) -> None:
    """Reductions over other axes."""
    x, shape = walk.of(node.inputs[0]), lengths(node.inputs[0])
    if x is None:
        return None
    given = node.inputs[1] if len(node.inputs) > 1 else None
    axes = g.ints(node, "axes") if given is None else g.array(given)
    if axes is None or shape is None:
        return refuse(node, walk, "reduces over axes that are all, or computed")
    gone = {int(a) % len(shape) for a in np.asarray(axes).reshape(-1)}
    if x.axis in gone:
        return refuse(node, walk, "reduces over them")
    shift = 0 if g.number(node, "keepdims", 1) else sum(a < x.axis for a in gone)
    walk.at[node.outputs[0]] = Channels(x.axis - shift, x.ids)
    return None


def softmax(node: ir.Node, walk: Walk) -> None:
    """Softmax mixes along its axis: fine along another one than the channels'."""
    x, shape = walk.of(node.inputs[0]), lengths(node.inputs[0])
    if x is None:
        return None
    if shape is None or walk.opset < 13 or g.number(node, "axis", -1) % len(shape) == x.axis:
        return refuse(node, walk, "mixes them")
    walk.at[node.outputs[0]] = x
    return None


def pad(node: ir.Node, walk: Walk) -> None:
    """Pad along other axes."""
    x, shape = walk.of(node.inputs[0]), lengths(node.inputs[0])
    if x is None:
        return None
    pads = g.ints(node, "pads") if len(node.inputs) < 2 else g.array(node.inputs[1])
    has_axes = len(node.inputs) > 3 and node.inputs[3] is not None
    if pads is None or shape is None or has_axes or pads[x.axis] or pads[x.axis + len(shape)]:
        return refuse(node, walk, "pads them, or by an amount that is computed")
    walk.at[node.outputs[0]] = x
    return None


def resize(node: ir.Node, walk: Walk) -> None:
    """Resize and Upsample of the space."""
    x, before, after = walk.of(node.inputs[0]), lengths(node.inputs[0]), lengths(node.outputs[0])
    if x is None:
        return None
    if before is None or after is None or after[x.axis] != before[x.axis] or "axes" in node.attributes:
        return refuse(node, walk, "may change their number")
    sizes = node.inputs[3] if len(node.inputs) > 3 else None
    if sizes is not None:
        if g.array(sizes) is None:
            return refuse(node, walk, "goes to a size that is computed")
        walk.counts.append(Count(node, 3, x.axis, x.ids))
    walk.at[node.outputs[0]] = x
    return None


def split(node: ir.Node, walk: Walk) -> None:
    """Split into parts of constant lengths."""
    x, shape = walk.of(node.inputs[0]), lengths(node.inputs[0])
    if x is None:
        return None
    if shape is None:
        return refuse(node, walk, "has an input of unknown shape")
    if g.number(node, "axis", 0) % len(shape) != x.axis:
        for out in node.outputs:
            walk.at[out] = x
        return None
    sizes = g.array(node.inputs[1]) if len(node.inputs) > 1 else None
    if sizes is None:
        return refuse(node, walk, "parts them equally, or by lengths that are computed")
    start = 0
    for i, (out, size) in enumerate(zip(node.outputs, sizes, strict=True)):
        ids = x.ids[start : start + int(size)]
        walk.at[out] = Channels(x.axis, ids)
        walk.counts.append(Count(node, 1, i, ids))
        start += int(size)
    return None


def slice_(node: ir.Node, walk: Walk) -> None:
    """Slice of other axes."""
    x, shape = walk.of(node.inputs[0]), lengths(node.inputs[0])
    if x is None:
        return None
    axes = g.array(node.inputs[3]) if len(node.inputs) > 3 else None
    if axes is None or shape is None or x.axis in axes.reshape(-1) % len(shape):
        return refuse(node, walk, "takes a part of them")
    walk.at[node.outputs[0]] = x
    return None


def fixed(node: ir.Node, walk: Walk, why: str) -> None:
    """Operators that need all channels."""
    refuse(node, walk, why)


_UNARY = (
    *("Abs", "Cast", "Ceil", "Celu", "Clip", "Cos", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid"),
    *("HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid"),
    *("Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu"),
)
_MANY = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "PRelu")
_REDUCE = ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")

RULES: dict[str, Rule] = {
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "Gemm": layers.gemm,
    "MatMul": layers.matmul,
    "BatchNormalization": layers.per_channel,
    "InstanceNormalization": layers.per_channel,
    **dict.fromkeys(_UNARY, same),
    **dict.fromkeys(_MANY, elementwise),
    "Concat": concat,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    "Shape": shape_of,
    "Transpose": transpose,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), pool),
    **{f"Reduce{name}": reduce for name in _REDUCE},
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), softmax),
    "Pad": pad,
    **dict.fromkeys(("Resize", "Upsample"), resize),
    "Split": split,
    "Slice": slice_,
    "LayerNormalization": functools.partial(fixed, why="averages over them"),
    "GroupNormalization": functools.partial(fixed, why="averages over groups of them"),
    "LRN": functools.partial(fixed, why="averages over neighbours among them"),
}
