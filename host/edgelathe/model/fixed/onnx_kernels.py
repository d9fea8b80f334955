"""Integer kernels without weights: sums, products, pooling, concatenation, lookup tables, Softmax, and mere moves.

The formulas, and where the zero point is added (before or after rounding: ties differ), are those of ONNX Runtime's
QLinear operators (contrib_ops/cpu/quantization and mlas), so that results agree with the graph that it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed import elementwise, onnx_float
from edgelathe.model.fixed import onnx_products as products
from edgelathe.model.fixed.limits import Limits, settle, stored
from edgelathe.model.fixed.onnx_linear import Made
from edgelathe.model.fixed.onnx_rescale import Target, rescale, shifted, store
from edgelathe.model.fixed.onnx_units import MOVES
from edgelathe.model.fixed.types import Grid, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.onnx_graph import Node
    from edgelathe.model.fixed.rescaling import Way


@dataclass(frozen=True, eq=False)
class Call:
    """One operator with integers that go in and a grid that its output is to be on; scales are one for a tensor."""

    node: Node
    inputs: Sequence[Value | None]
    grid: Grid
    limits: Limits
    target: Target

    def integers(self, index: int) -> tuple[NDArray[Any], Grid] | None:
        """An input's integers and grid; None where it is real, or has several scales."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None or value.grid is None or value.grid.axis is not None:
            return None
        return value.data, value.grid

    def made(self, settled: tuple[NDArray[Any], int]) -> Made:
        """The answer."""
        return Made(Value(settled[0], self.grid), settled[1])


Kernel = Callable[[Call], Made | None]


def add(call: Call) -> Made | None:
    """Sum of two grids; ratios of scales are taken first. Fused multiply-adds, in the order of the x86 kernel."""
    a, b = call.integers(0), call.integers(1)
    if call.target.rounding != "float":
        return _sum(call, 1)
    if a is None or b is None or max(a[1].bits, b[1].bits, call.grid.bits) > 8:
        return None  # ONNX Runtime adds 16-bit values in float
    (x, gx), (y, gy), out = a, b, call.grid
    to = np.float32(out.scale)
    rx, ry = np.float32(gx.scale) / to, np.float32(gy.scale) / to
    offset = float(rx) * gx.zero_point + float(ry * np.float32(gy.zero_point))
    fixed = np.float32(out.zero_point) - np.float32(offset)
    total = _fused(y, ry, fixed)
    total = _fused(x, rx, total)
    return call.made(settle(np.rint(total), np.int64(0), out, call.limits))


def subtract(call: Call) -> Made | None:
    """Difference of two grids; ONNX Runtime computes it in float."""
    return None if call.target.rounding == "float" else _sum(call, -1)


def mul(call: Call) -> Made | None:
    """Product of two grids."""
    a, b = call.integers(0), call.integers(1)
    if a is None or b is None:
        return None
    (x, gx), (y, gy), out = a, b, call.grid
    if call.target.rounding != "float":
        return call.made(elementwise.Product(gx, gy, out, call.limits, call.target.rounding)(x, y))
    if max(gx.bits, gy.bits, out.bits) > 8:
        return None
    product = (x.astype(np.int32) - gx.zero_point) * (y.astype(np.int32) - gy.zero_point)
    ratio = np.float32(gx.scale) * np.float32(gy.scale) / np.float32(out.scale)
    return call.made(shifted(product.astype(np.float32) * ratio, out, call.limits))


def global_average(call: Call) -> Made | None:
    """The sum over the image, and one factor for scale and count."""
    given = call.integers(0)
    if given is None:
        return None
    x, gx = given
    count = prod(x.shape[2:])
    sums = x.sum(axis=tuple(range(2, x.ndim)), keepdims=True, dtype=np.int64) - gx.zero_point * count
    if call.target.rounding != "float":
        factor: Any = gx.scale / (call.grid.scale * count)
    else:
        factor = np.float32(gx.scale) / (np.float32(call.grid.scale) * np.float32(count))
    return call.made(rescale(sums, np.asarray(factor), call.grid, call.limits, call.target, wide=gx.bits > 8))


def average(call: Call) -> Made | None:
    """The mean over windows, of real numbers as ONNX Runtime takes it, or of integers on a target without them."""
    given = call.integers(0)
    if given is None or (call.grid.bits > 8 and call.target.rounding == "float"):
        return None
    x, gx = given
    window = products.window(call.node, x.shape[2:], call.node.attributes["kernel_shape"])
    if call.target.rounding == "float":
        mean = onnx_float.average(gx.dequantize(x), window, bool(call.node.get("count_include_pad", 0)))
        return call.made(shifted(mean / np.float32(call.grid.scale), call.grid, call.limits))
    axes = tuple(range(-len(window.size), 0))
    sums = window.cut(x.astype(np.int64) - gx.zero_point).sum(axis=axes)
    counts = onnx_float.counts(window, x.shape[2:], bool(call.node.get("count_include_pad", 0)))
    factor = gx.scale / (call.grid.scale * counts)
    return call.made(rescale(sums, factor, call.grid, call.limits, call.target, wide=gx.bits > 8))


def concat(call: Call) -> Made | None:
    """Each part is copied where it is on the output's grid, else put on it by a table."""
    parts, clipped = [], 0
    for value in call.inputs:
        if value is None:
            return None
        if value.grid is None:
            part, outside = store(value.data, call.grid, call.limits)
        elif same(value.grid, call.grid):
            part, outside = np.clip(value.data, call.limits.low, call.limits.high).astype(stored(call.grid)), 0
        else:
            part, outside = store(value.real, call.grid, call.limits)
        parts.append(part)
        clipped += outside
    return call.made((np.concatenate(parts, axis=call.node.attributes["axis"]), clipped))


def table(call: Call) -> Made | None:
    """A function of one number, looked up: computed in float32 for each integer that can occur."""
    given = call.integers(0)
    if given is None or given[1].bits > 12 or any(v is not None and v.grid is not None for v in call.inputs[1:]):
        return None
    x, gx = given
    every = Value(np.arange(gx.low, gx.high + 1).astype(stored(gx)), gx)
    rest = [None if v is None else v.data for v in call.inputs[1:]]
    (real, *_) = onnx_float.run(call.node, [every.real, *rest])
    answers, _ = store(real, call.grid, call.limits)
    scaled = np.rint(real / np.float32(call.grid.scale)) + call.grid.zero_point
    outside = (scaled < call.grid.low) & call.limits.grid_low | (scaled > call.grid.high) & call.limits.grid_high
    index = x.astype(np.intp) - gx.low
    return Made(Value(answers[index], call.grid), int(np.count_nonzero(outside[index])) if outside.any() else 0)


def softmax(call: Call) -> Made | None:
    """Exponentials from a table aligned to each row's maximum, sums and quotients in float32 (QLinearSoftmax)."""
    given = call.integers(0)
    if given is None or given[1].bits != 8 or call.grid.bits != 8 or call.target.rounding != "float":
        return None
    x, gx = given
    axis = call.node.get("axis", -1 if call.node.version >= 13 else 1) % x.ndim
    rows = np.moveaxis(x, axis, -1) if call.node.version >= 13 else x.reshape(*x.shape[:axis], -1)
    count = rows.shape[-1]
    room = max(0.0, np.log(np.finfo(np.float32).max / np.float32(count)) - 5) / gx.scale
    exponentials = np.exp((np.arange(256) - 255 + room) * gx.scale).astype(np.float32)
    codes = rows.astype(np.intp) - gx.low
    picked = exponentials[codes + 255 - codes.max(axis=-1, keepdims=True)]
    sums = picked[..., 0].copy()
    for i in range(1, count):
        sums += picked[..., i]
    levels = np.floor(np.float32(1) / np.float32(call.grid.scale))
    shares = np.rint(picked * levels / sums[..., None])
    data, clipped = settle(shares, np.int64(call.grid.zero_point), call.grid, call.limits)
    out = np.moveaxis(data, -1, axis) if call.node.version >= 13 else data.reshape(x.shape)
    return Made(Value(out, call.grid), clipped)


KERNELS: Mapping[str, Kernel] = {
    "Add": add,
    "Sub": subtract,
    "Mul": mul,
    "GlobalAveragePool": global_average,
    "AveragePool": average,
    "Concat": concat,
    "Softmax": softmax,
} | dict.fromkeys(onnx_float.UNARY, table)


def move(node: Node, inputs: Sequence[Value | None]) -> list[Value] | None:
    """Outputs of an operator that only moves numbers, on their old grid; None where it has to be done on reals."""
    first = inputs[0]
    if node.op not in MOVES or first is None or first.grid is None or first.grid.axis is not None:
        return None
    grid = first.grid
    if any(v is not None and v.grid is not None for v in inputs[1:]) or (
        node.op == "MaxPool" and len(node.outputs) > 1
    ):
        return None
    data: NDArray[Any] = first.data
    rest = [None if v is None else v.data for v in inputs[1:]]
    if node.op == "Resize" and node.get("mode", "nearest") != "nearest":
        return None
    if node.op == "Pad":
        value = rest[1] if len(rest) > 1 else None
        if (
            node.version < 11
            or (value is not None and np.any(value != 0))
            or node.get("mode", "constant") != "constant"
        ):
            return (
                None
                if node.version < 11 or (value is not None and np.any(value != 0))
                else _moved(node, [data, *rest], grid)
            )
        data = data.astype(np.int32) - grid.zero_point
        return [Value((d + grid.zero_point).astype(stored(grid)), grid) for d in onnx_float.run(node, [data, *rest])]
    return _moved(node, [data, *rest], grid)


def same(a: Grid, b: Grid) -> bool:
    """Whether both are one grid, of one scale."""
    return a is b or (
        a.axis is None and b.axis is None and (a.bits, a.signed) == (b.bits, b.signed)
        and a.scale == b.scale and a.zero_point == b.zero_point
    )  # fmt: skip


def _sum(call: Call, sign: int) -> Made | None:
    """Sum or difference by multipliers and shifts."""
    a, b = call.integers(0), call.integers(1)
    if a is None or b is None:
        return None
    (x, gx), (y, gy) = a, b
    way: Way = "even" if call.target.rounding == "float" else call.target.rounding
    return call.made(elementwise.Sum(gx, gy, call.grid, call.limits, sign, way)(x, y))


def _fused(x: NDArray[Any], factor: np.float32, more: Any) -> NDArray[np.float32]:
    """x * factor + more rounded once to float32: the products of 8 by 24 bits are exact in float64."""
    return np.asarray(x.astype(np.float64) * float(factor) + more, np.float32)


def _moved(node: Node, arrays: list[Any], grid: Grid) -> list[Value]:
    return [Value(np.asarray(d, stored(grid)), grid) for d in onnx_float.run(node, arrays)]
