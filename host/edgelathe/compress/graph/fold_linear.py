"""Affine work behind a linear layer moves into its weights: f * (W x + b) + d is one (Jacob et al., 2018, 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.graph.moves import Names, array, ints, layer, number, only_consumer, rank, scalar, set_constant

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def batch_norm(node: ir.Node, names: Names) -> str | None:
    """BatchNormalization into the layer before it; gives what was done, None where it does not apply."""
    if node.op_type != "BatchNormalization" or number(node, "training_mode", 0):
        return None
    into = _producer(node.inputs[0])
    gamma, beta, mean, var = (array(v) for v in node.inputs[1:5])
    if into is None or gamma is None or beta is None or mean is None or var is None:
        return None
    factor = gamma.astype(np.float64) / np.sqrt(var.astype(np.float64) + number(node, "epsilon", 1e-5))
    return _absorb(into, factor, beta - mean * factor, names)


def affine(node: ir.Node, names: Names) -> str | None:
    """Add, Sub, Mul or Div by one constant per channel (or one for all) into the layer before it."""
    if node.op_type not in ("Add", "Sub", "Mul", "Div"):
        return None
    flips = node.op_type in ("Add", "Mul")
    for side in (0, 1) if flips else (0,):
        into, data = _producer(node.inputs[side]), array(node.inputs[1 - side])
        if into is None or data is None or data.dtype != np.float32:
            continue
        per_channel = _channel_vector(into, data.astype(np.float64))
        if per_channel is None or (node.op_type == "Div" and not per_channel.all()):
            continue
        one, zero = np.ones_like(per_channel), np.zeros_like(per_channel)
        factor, shift = {
            "Add": (one, per_channel),
            "Sub": (one, -per_channel),
            "Mul": (per_channel, zero),
            "Div": (1 / per_channel if node.op_type == "Div" else one, zero),
        }[node.op_type]
        return _absorb(into, factor, shift, names)
    return None


def channels(node: ir.Node) -> int | None:
    """Output channels of a linear layer with constant weights."""
    w = array(node.inputs[1])
    if w is None:
        return None
    if node.op_type == "ConvTranspose":
        return int(w.shape[1] * number(node, "group", 1))
    return int(w.shape[_axis(node)])


def _axis(node: ir.Node) -> int:
    """Axis of the weights that counts output channels."""
    if node.op_type == "MatMul":
        return -1
    return 0 if node.op_type == "Conv" or number(node, "transB", 0) else 1


def _producer(value: ir.Value | None) -> ir.Node | None:
    """The float linear layer with constant weights whose only reader takes this value."""
    node = value.producer() if value is not None else None
    if node is None or value is None or node.op_type not in LINEAR or node.domain or only_consumer(value) is None:
        return None
    w = array(node.inputs[1])
    if w is None or w.dtype != np.float32 or (node.op_type == "MatMul" and w.ndim != 2):
        return None
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    return None if has_bias and array(node.inputs[2]) is None else node


def _channel_vector(node: ir.Node, data: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """`data` as one number per output channel of the layer, where it broadcasts so and adds no axis."""
    w, count = array(node.inputs[1]), channels(node)
    assert w is not None
    assert count is not None
    if node.op_type in ("Conv", "ConvTranspose"):
        axes, at = w.ndim, 1
    else:
        axes = 2 if node.op_type == "Gemm" else (rank(node.outputs[0]) or 1)
        at = axes - 1
    if data.ndim > axes:
        return None
    full = data.reshape((1,) * (axes - data.ndim) + data.shape)
    if any(n != 1 for i, n in enumerate(full.shape) if i != at) or full.shape[at] not in (1, count):
        return None
    return np.broadcast_to(full.reshape(-1), (count,)).copy()


def _absorb(into: ir.Node, factor: NDArray[np.float64], shift: NDArray[np.float64], names: Names) -> str | None:
    """Scale and shift the outputs of `into`; the caller then bypasses the node that did it.

    What is not finite stays where it is: -inf masks answers, and as a bias it would be a weight that no step can take.
    """
    if not (np.isfinite(factor).all() and np.isfinite(shift).all()):
        return None
    w = array(into.inputs[1])
    assert w is not None
    old = array(into.inputs[2]) if len(into.inputs) > 2 else None
    if into.op_type == "MatMul" and shift.any():
        if rank(into.inputs[0]) != 2:
            return None
        into.op_type = "Gemm"
    bias: NDArray[Any] = (
        np.zeros(len(factor)) if old is None else np.broadcast_to(old, _bias_shape(old, factor)).astype(np.float64)
    )
    if into.op_type == "Gemm":
        if bias.ndim > 1 and bias.shape[0] != 1:
            return None  # a bias per row is no bias per channel
        bias = bias.reshape(-1) * number(into, "beta", 1.0)
        into.attributes.pop("beta", None)
    new_bias = bias * factor + shift
    if (factor != 1).any():
        set_constant(into, 1, _scaled(into, w, factor).astype(np.float32), names)
    if old is not None or new_bias.any():
        set_constant(into, 2, new_bias.astype(np.float32), names)
    return f"folded into {layer(into)}"


def _bias_shape(old: NDArray[Any], factor: NDArray[np.float64]) -> tuple[int, ...]:
    return (len(factor),) if old.ndim < 2 else (old.shape[0], len(factor))


def _scaled(node: ir.Node, w: NDArray[Any], factor: NDArray[np.float64]) -> NDArray[np.float64]:
    if node.op_type == "ConvTranspose":
        group = int(number(node, "group", 1))
        per = factor.reshape(group, 1, -1)
        shape = (group, w.shape[0] // group, *w.shape[1:])
        return np.asarray(w.reshape(shape) * per.reshape(*per.shape, *(1,) * (w.ndim - 2)), np.float64).reshape(w.shape)
    axis = _axis(node) % w.ndim
    return np.asarray(w * factor.reshape([-1 if i == axis else 1 for i in range(w.ndim)]), np.float64)


def pad(node: ir.Node) -> str | None:
    """Pad with zeros along the spatial axes into the convolution that reads it; exact, since it pads with zeros too."""
    if node.op_type != "Pad" or number(node, "mode", "constant") != "constant":
        return None
    conv, widths = only_consumer(node.outputs[0]), array(node.inputs[1]) if len(node.inputs) > 1 else None
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if (
        conv is None
        or conv.op_type != "Conv"
        or conv.domain
        or widths is None
        or (value is not None and scalar(value) != 0)
    ):
        return None
    w, axes = array(conv.inputs[1]), array(node.inputs[3]) if len(node.inputs) > 3 else None
    if w is None or (len(node.inputs) > 3 and node.inputs[3] is not None and axes is None):
        return None
    full = np.zeros((2, w.ndim), np.int64)
    full[:, np.arange(w.ndim) if axes is None else axes] = widths.reshape(2, -1)
    if number(conv, "auto_pad", "NOTSET") not in ("NOTSET", "VALID", "") or full[:, :2].any() or (full < 0).any():
        return None
    old = ints(conv, "pads", [0] * 2 * (w.ndim - 2))
    import onnx_ir as ir

    conv.attributes.pop("auto_pad", None)
    conv.attributes.add(ir.AttrInt64s("pads", [int(v) for v in np.asarray(old) + full[:, 2:].reshape(-1)]))
    return f"merged into {layer(conv)}"
