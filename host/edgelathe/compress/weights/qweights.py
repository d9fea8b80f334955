"""Integer weights and biases of one layer, with the mean error of rounding taken back out of the bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.calibrate.scales import store_weights, weight_scales
from edgelathe.compress.graph.moves import array, number
from edgelathe.compress.weights import saturation

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.weights.levels import Levels


@dataclass(frozen=True, eq=False)
class Stored:
    """One layer in integers: real weights = scale * weights, real bias = input scale * scale * bias.

    `weights` int8, told by `bits`: they fit these, or they are `values`, ascending, each output's moved by its `offset`
    (int8 [channels]); `scale` float32, one per output channel or shape (); `axis` of the channels, None
    for one scale; `bias` int32 [channels] or None. `narrowed`: how many
    outputs gave up range so that no pair of products leaves 16 bits.
    """

    weights: NDArray[np.int8]
    scale: NDArray[np.float32]
    axis: int | None
    bias: NDArray[np.int32] | None
    bits: int = 8
    narrowed: int = 0
    values: tuple[int, ...] | None = None
    offset: NDArray[np.int8] | None = None


def store(
    node: ir.Node,
    input_scale: float,
    mean: NDArray[np.float64] | None,
    levels: Levels,
    *,
    per_channel: bool,
    pairs: bool = False,
) -> Stored:
    """Quantize a Conv, Gemm or MatMul with constant weights.

    Args:
        node: the layer.
        input_scale: of its integer input.
        mean: float64 [input channels], the mean of its float input, to correct the bias by; None: no correction.
        levels: of the weights; the same number on both sides of zero is used.
        per_channel: one scale per output channel, or one.
        pairs: whether the kernel adds two products in 16 bits; no pair of the result saturates there.
    """
    w, bias = array(node.inputs[1]), array(node.inputs[2]) if len(node.inputs) > 2 else None
    assert w is not None
    out_axis = channel_axis(node)
    axis = out_axis if per_channel else None
    largest = levels.high
    scale = weight_scales(w, axis, largest)
    if bias is not None:  # the bias has to fit 32 bits in units of both scales, with room for the sum
        floor = np.abs(bias) / np.float64(input_scale) / 2.0**30
        floor = floor if per_channel else floor.max()
        dead = np.abs(w).max(axis=tuple(i for i in range(w.ndim) if i != axis)) == 0  # any scale does: the bias counts
        scale = np.where(dead & (floor > 0), floor * 2.0**10, np.maximum(scale, floor)).astype(np.float32)
    narrowed = 0
    if pairs and largest > saturation.SAFE:
        before, scale = scale, saturation.widened(w, scale, out_axis, axis)
        narrowed = int(np.broadcast_to(scale > before, w.shape[out_axis]).sum())
    q = store_weights(w, scale, axis, largest)
    if bias is None:
        return Stored(q, scale, axis, None, levels.bits, narrowed)
    real = bias.astype(np.float64)
    full = np.broadcast_to(scale, bias.shape)
    if mean is not None:
        shape = [-1 if i == out_axis else 1 for i in range(w.ndim)]
        real = real - mean_shift(node, q * full.reshape(shape).astype(np.float64) - w, mean)
    return Stored(q, scale, axis, integer_bias(real, np.float32(input_scale) * full), levels.bits, narrowed)


def integer_bias(real: NDArray[np.float64], scale: NDArray[np.float32]) -> NDArray[np.int32]:
    """Nearest int32 of a bias in units of the products' scale."""
    return np.asarray(np.clip(np.rint(real / scale), -(2**31) + 1, 2**31 - 1), np.int32)


def channel_axis(node: ir.Node) -> int:
    """The axis of the weights that counts output channels."""
    return 0 if node.op_type == "Conv" or number(node, "transB", 0) else 1


def mean_shift(node: ir.Node, error: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the rounding of the weights adds to each output on average (Nagel et al., 2019, 4.2), padding left out."""
    if node.op_type != "Conv":
        return np.asarray(error @ mean if channel_axis(node) == 0 else mean @ error, np.float64)
    group = int(number(node, "group", 1))
    per_input = error.reshape(*error.shape[:2], -1).sum(axis=2).reshape(group, -1, error.shape[1])
    return np.asarray(np.einsum("goi,gi->go", per_input, mean.reshape(group, -1)), np.float64).reshape(-1)
