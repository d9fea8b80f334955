"""Where channels begin and end: rules for the operators with weights, and for normalization per channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.graph import moves as g
from edgelathe.compress.pruning.channels import Channels, Count, Ids, Slices, Walk, lengths, refuse

if TYPE_CHECKING:
    import onnx_ir as ir


def conv(node: ir.Node, walk: Walk) -> None:
    """Conv: W [out, in/groups, ...]; depthwise channels pass, grouped ones are tied place by place."""
    x, w = walk.of(node.inputs[0]), g.array(node.inputs[1])
    if w is None or (x is not None and x.axis != 1):
        return refuse(node, walk, "has weights that are computed")
    groups = g.number(node, "group", 1)
    count = w.shape[0]
    if groups > 1 and w.shape[1] == 1 and x is not None:  # depthwise, `count // groups` outputs per input
        out = np.repeat(x.ids, count // groups)
        walk.counts.append(Count(node, None, 0, x.ids))
    elif groups > 1 and w.shape[1] == 1:
        return None  # depthwise on the model's own input
    else:
        out = walk.layer(node, count)
        if groups > 1:
            for ids in (out, *([x.ids] if x is not None else [])):
                rows = ids.reshape(groups, -1)
                walk.tie(np.tile(rows[0], groups - 1), rows[1:].reshape(-1))
        if x is not None:
            walk.slices.append(Slices(node, 1, 1, x.ids[: w.shape[1]], reads=True))
    walk.slices.append(Slices(node, 1, 0, out))
    _bias(node, walk, out)
    walk.at[node.outputs[0]] = Channels(1, out)
    return None


def conv_transpose(node: ir.Node, walk: Walk) -> None:
    """ConvTranspose: W [in, out/groups, ...]."""
    x, w, groups = walk.of(node.inputs[0]), g.array(node.inputs[1]), g.number(node, "group", 1)
    if w is None or groups != 1 or (x is not None and x.axis != 1):
        return refuse(node, walk, "is grouped, or has weights that are computed")
    out = walk.layer(node, w.shape[1])
    if x is not None:
        walk.slices.append(Slices(node, 1, 0, x.ids, reads=True))
    walk.slices.append(Slices(node, 1, 1, out))
    _bias(node, walk, out)
    walk.at[node.outputs[0]] = Channels(1, out)
    return None


def gemm(node: ir.Node, walk: Walk) -> None:
    """Gemm: the features of A are read by B, whose other axis makes the output's."""
    x, w = walk.of(node.inputs[0]), g.array(node.inputs[1])
    if w is None or g.number(node, "transA", 0) or (x is not None and x.axis != 1):
        return refuse(node, walk, "is transposed, or has weights that are computed")
    out_axis = 0 if g.number(node, "transB", 0) else 1
    out = walk.layer(node, w.shape[out_axis])
    if x is not None:
        walk.slices.append(Slices(node, 1, 1 - out_axis, x.ids, reads=True))
    walk.slices.append(Slices(node, 1, out_axis, out))
    walk.at[node.outputs[0]] = Channels(1, out)
    return _bias(node, walk, out)


def matmul(node: ir.Node, walk: Walk) -> None:
    """MatMul of values [..., in] with constant weights [in, out]."""
    x, w, shape = walk.of(node.inputs[0]), g.array(node.inputs[1]), lengths(node.inputs[0])
    if w is None or w.ndim != 2 or shape is None or len(shape) < 2 or (x is not None and x.axis != len(shape) - 1):
        return refuse(node, walk, "has no constant matrix of weights on its right")
    out = walk.layer(node, w.shape[1])
    if x is not None:
        walk.slices.append(Slices(node, 1, 0, x.ids, reads=True))
    walk.slices.append(Slices(node, 1, 1, out))
    walk.at[node.outputs[0]] = Channels(len(shape) - 1, out)
    return None


def _bias(node: ir.Node, walk: Walk, out: Ids) -> None:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return
    bias = g.array(value)
    if bias is None or (bias.size > 1 and bias.shape[-1] != len(out)) or bias.size not in (1, len(out)):
        walk.stays.append((out, f"{node.op_type} '{g.layer(node)}' has a bias that is computed"))
    elif bias.ndim and bias.shape[-1] == len(out):
        walk.slices.append(Slices(node, 2, bias.ndim - 1, out))


def per_channel(node: ir.Node, walk: Walk) -> None:
    """Normalization with constants [channels] and statistics per channel; axis 1."""
    x = walk.of(node.inputs[0])
    if x is None:
        return None
    constants = range(1, len(node.inputs))
    if x.axis != 1 or len(node.outputs) > 1 or any(g.array(node.inputs[i]) is None for i in constants):
        return refuse(node, walk, "has constants that are computed, or is in training form")
    walk.slices.extend(Slices(node, i, 0, x.ids) for i in constants)
    walk.at[node.outputs[0]] = x
    return None
