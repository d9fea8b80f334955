"""Layers of products in integers: Conv, Gemm and MatMul, with constant or computed second operand."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed import onnx_narrow as narrow
from edgelathe.model.fixed import onnx_products as products
from edgelathe.model.fixed.limits import Limits
from edgelathe.model.fixed.onnx_rescale import Target, rescale, store
from edgelathe.model.fixed.products import kind
from edgelathe.model.fixed.rounding import accumulate
from edgelathe.model.fixed.types import Grid, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.onnx_graph import Node

OPERATORS = frozenset(("Conv", "Gemm", "MatMul"))
_NO_SATURATION = narrow.Saturation()


@dataclass(frozen=True, eq=False)
class Made:
    """What a kernel computed: the output, how many values its grid had no room for, how many sums overflowed."""

    value: Value
    clipped: int = 0
    overflows: int = 0
    saturation: narrow.Saturation = _NO_SATURATION


@dataclass(frozen=True, eq=False)
class Linear:
    """One layer made ready: weights without zero points in the type that sums are exact in.

    Attributes:
        node: the layer.
        weights: as Conv has them, [out, k] for Gemm, [..., k, out] for MatMul.
        codes: the same as stored, integers.
        bias: integer [out] in units of both scales, real, or None.
        scales: float32, of the weights: (), or one an output.
        grid: of the input; `exact`: the type of the sums; `constant`: whether the weights are the model's own.
    """

    node: Node
    weights: NDArray[Any]
    codes: Value
    bias: NDArray[Any] | None
    whole_bias: bool
    scales: NDArray[np.float32]
    grid: Grid
    exact: Any
    constant: bool

    def factor(self) -> NDArray[np.float32]:
        """Real value of one unit of the sums; in this order ONNX Runtime multiplies, in float32."""
        alpha = np.float32(self.node.get("alpha", 1.0)) if self.node.op == "Gemm" else np.float32(1)
        return np.asarray(alpha * np.float32(self.grid.scale) * self.scales, np.float32)


def prepare(node: Node, x: Value | None, w: Value | None, bias: Value | None, *, constant: bool) -> Linear | None:
    """The layer in integers; None where its form has no integer kernel (it is computed in float then)."""
    if x is None or w is None or x.grid is None or w.grid is None or x.grid.axis is not None or w.grid.block:
        return None
    transposed = bool(node.get("transB", 0))
    if node.op == "Gemm" and (node.get("transA", 0) or (bias is not None and node.get("beta", 1.0) != 1.0)):
        return None
    axis = {"Conv": 0, "Gemm": 0 if transposed else 1, "MatMul": w.data.ndim - 1}[node.op]
    if w.grid.axis not in (None, axis) or (node.op == "MatMul" and w.data.ndim < 2):
        return None
    weights = w.data.astype(np.int64) - w.grid.spread(w.grid.zero_points, w.data.shape)
    if node.op == "Gemm" and not transposed:
        weights = weights.T
    if node.op == "MatMul":
        depths = np.abs(weights.astype(np.float64)).sum(axis=-2)
    else:
        depths = np.abs(weights.reshape(len(weights), -1).astype(np.float64)).sum(axis=1)
    scales = w.grid.scales.astype(np.float32).reshape(-1)
    scales = scales if w.grid.axis is not None else scales[0]
    whole, offset = _bias(bias, np.float32(x.grid.scale) * scales)
    reach = max(x.grid.high - x.grid.zero_point, x.grid.zero_point - x.grid.low)
    bound = reach * float(depths.max(initial=0)) + (
        float(np.abs(offset).max(initial=0)) if whole and offset is not None else 0
    )
    exact = kind(bound)
    return Linear(node, weights.astype(exact), w, offset, whole, np.asarray(scales), x.grid, exact, constant)


def run(layer: Linear, x: Value, grid: Grid | None, within: Limits | None, target: Target) -> Made:
    """One call: exact sums, the bias, and the output on `grid`, or in float32 where that is None."""
    shifted = x.data.astype(layer.exact)
    shifted -= layer.exact(layer.grid.zero_point)
    op = layer.node.op
    if op == "Conv":
        size = layer.weights.shape[2:]
        window = products.window(layer.node, x.data.shape[2:], size)
        sums = products.conv(shifted, layer.weights, window, layer.node.get("group", 1))
    elif op == "Gemm":
        sums = shifted @ layer.weights.T
    else:
        sums = np.asarray(shifted @ layer.weights)
    saturation = _NO_SATURATION
    if target.narrow and pairs_up(layer):
        change, saturation = _lost(layer, x)
        if saturation.pairs:
            sums = sums.astype(np.float64) + change
    spread = [1, -1, *[1] * (x.data.ndim - 2)] if op == "Conv" else [-1]
    if layer.bias is not None and layer.whole_bias:
        sums = sums + _along(layer.bias, spread).astype(sums.dtype)
    sums, overflows = _accumulate(sums, layer.grid, target)
    factor = layer.factor()
    if grid is not None and (layer.bias is None or layer.whole_bias):
        assert within is not None
        over = (
            factor / np.float32(grid.scale)
            if target.rounding == "float"
            else layer.grid.scale * layer.scales.astype(np.float64) * layer.node.get("alpha", 1.0) / grid.scale
        )
        data, clipped = rescale(sums, _along(over, spread), grid, within, target, wide=layer.grid.bits > 8)
        return Made(Value(data, grid), clipped, overflows, saturation)
    real = sums.astype(np.float32) * _along(factor, spread)
    if layer.bias is not None and not layer.whole_bias:
        real = real + _along(layer.bias, spread)
    if grid is None:
        return Made(Value(real), 0, overflows, saturation)
    data, clipped = store(real, grid, within)
    return Made(Value(data, grid), clipped, overflows, saturation)


def pairs_up(layer: Linear) -> bool:
    """Whether a machine without VNNI adds its products in pairs: 8-bit inputs, int8 constants, no depthwise."""
    w = layer.codes
    assert w.grid is not None
    depthwise = layer.node.op == "Conv" and w.data.shape[:2] == (layer.node.get("group", 1), 1)
    return layer.constant and layer.grid.bits <= 8 and w.grid.bits <= 8 and w.grid.signed and not depthwise


def rows(layer: Linear) -> NDArray[Any]:
    """Stored weights [groups, out / groups, k] in the order in which the kernels add them: channels side by side."""
    w = layer.codes.data
    if layer.node.op == "Conv":
        groups = layer.node.get("group", 1)
        order = (0, *range(2, w.ndim), 1)
        return w.transpose(order).reshape(groups, w.shape[0] // groups, -1)
    if layer.node.op == "Gemm" and layer.node.get("transB", 0):
        return w[None]
    flat = np.moveaxis(w, -2, -1)
    return flat.reshape(-1, *flat.shape[-2:])


def _lost(layer: Linear, x: Value) -> tuple[NDArray[Any], narrow.Saturation]:
    """The change of every sum by saturation, in the shape of the sums."""
    grid = layer.grid
    codes = (x.data.astype(np.int32) - grid.low).astype(np.uint8)  # int8 is made uint8 first
    weights = rows(layer)
    if layer.node.op != "Conv":
        return _lost_matrices(codes, weights, layer, grid.high - grid.low)
    window = products.window(layer.node, x.data.shape[2:], layer.weights.shape[2:])
    axes, groups = len(window.size), len(weights)
    cut = window.cut(codes, grid.zero_point - grid.low)
    n, c, *space = cut.shape[: 2 + axes]
    cut = cut.reshape(n, groups, c // groups, *cut.shape[2:])
    order = (0, 1, *range(3 + axes, 3 + 2 * axes), 2, *range(3, 3 + axes))
    columns = cut.transpose(order).reshape(n, groups, -1, prod(space))
    parts = [narrow.lost(columns[:, g], weights[g], grid.high - grid.low) for g in range(groups)]
    change = np.concatenate([p[0] for p in parts], axis=1).reshape(n, -1, *space)
    return change, sum((p[1] for p in parts), _NO_SATURATION)


def _lost_matrices(
    codes: NDArray[Any], weights: NDArray[Any], layer: Linear, largest: int
) -> tuple[NDArray[Any], narrow.Saturation]:
    """Of Gemm, and of MatMul with one matrix or a batch of them."""
    if len(weights) == 1:
        flat = codes.reshape(-1, codes.shape[-1])
        change, found = narrow.lost(flat.T[None], weights[0], largest)
        return change[0].T.reshape(*codes.shape[:-1], -1), found
    batch = np.broadcast_shapes(codes.shape[:-2], layer.codes.data.shape[:-2])
    index = np.broadcast_to(np.arange(len(weights)).reshape(layer.codes.data.shape[:-2]), batch).reshape(-1)
    stacked = np.broadcast_to(codes, (*batch, *codes.shape[-2:])).reshape(-1, *codes.shape[-2:])
    parts = [narrow.lost(x.T[None], weights[i], largest) for x, i in zip(stacked, index, strict=True)]
    change = np.stack([p[0][0].T for p in parts]).reshape(*batch, codes.shape[-2], -1)
    return change, sum((p[1] for p in parts), _NO_SATURATION)


def _bias(bias: Value | None, unit: NDArray[Any]) -> tuple[bool, NDArray[Any] | None]:
    """Whether it is integer in units of both scales, and its numbers."""
    if bias is None:
        return False, None
    if bias.grid is None:
        return False, bias.data.astype(np.float32)
    scales = bias.grid.scales.astype(np.float32).reshape(-1)
    if bias.grid.bits == 32 and not bias.grid.zero_points.any() and np.allclose(scales, unit, rtol=1e-3, atol=0):
        return True, bias.data.astype(np.int64)
    return False, bias.real


def _along(array: NDArray[Any], spread: list[int]) -> NDArray[Any]:
    """Numbers of outputs in a form that broadcasts over the sums; one number, and whole matrices, stay as they are."""
    return np.reshape(array, spread) if np.ndim(array) == 1 and np.size(array) > 1 else np.asarray(array)


def _accumulate(sums: NDArray[Any], grid: Grid, target: Target) -> tuple[NDArray[Any], int]:
    bits = target.accumulator(grid)
    if bits >= 64 or (sums.dtype == np.float32 and bits > 24) or np.abs(sums).max(initial=0) < (1 << (bits - 1)):
        return sums, 0  # float32 holds sums within 24 bits
    return accumulate(sums.astype(np.int64), bits, target.arithmetic.overflow)
