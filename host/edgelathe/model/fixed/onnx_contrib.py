"""Operators of ONNX Runtime's own domain that quantizers write and the standard has no reference for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed.products import kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.onnx_graph import Node


def matmul_nbits(node: Node, inputs: Sequence[Any]) -> Any:
    """x @ W.T with W [n, k] stored in blocks of its rows, several values to a byte, a scale and zero point each block.

    Source: the operator's description (ContribOperators.md, com.microsoft.MatMulNBits).
    """
    x, packed, scales, zeros, _order, bias = _filled(inputs, 6)
    k, n, block, bits = (int(node.attributes[a]) for a in ("K", "N", "block_size", "bits"))
    blocks = -(-k // block)
    codes = unpack(packed.reshape(n, blocks, -1), bits)[:, :, :block].astype(np.float32)
    if zeros is None:
        shift: Any = np.float32(1 << (bits - 1))
    elif zeros.dtype == np.uint8:
        shift = unpack(zeros.reshape(n, -1), bits)[:, :blocks, None].astype(np.float32)
    else:
        shift = zeros.reshape(n, blocks, 1).astype(np.float32)
    w = (codes - shift) * scales.reshape(n, blocks, 1).astype(np.float32)
    out = x @ w.reshape(n, -1)[:, :k].T.astype(x.dtype)
    return out if bias is None else out + bias


def unpack(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Values of 2, 4 or 8 bits along the last axis, the lowest bits first."""
    each = 8 // bits
    parts = [(packed >> (bits * i)) & ((1 << bits) - 1) for i in range(each)]
    return np.asarray(np.stack(parts, axis=-1).reshape(*packed.shape[:-1], -1), np.uint8)


def dynamic_quantize(x: NDArray[Any]) -> tuple[NDArray[np.uint8], np.float32, np.uint8]:
    """DynamicQuantizeLinear: uint8 on the range of x and 0, the scale, and the zero point."""
    low, high = min(np.float32(x.min(initial=0)), np.float32(0)), max(np.float32(x.max(initial=0)), np.float32(0))
    scale = (high - low) / np.float32(255) or np.float32(1)
    zero = np.float32(np.rint(np.clip(-low / scale, 0, 255)))
    return np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8), np.float32(scale), np.uint8(zero)


def integer_product(a: NDArray[Any], b: NDArray[Any], za: Any, zb: Any) -> NDArray[np.int32]:
    """MatMulInteger: (a - za) @ (b - zb), exact; zero points one for all, za per row, zb per column."""
    left, right = a.astype(np.int32), b.astype(np.int32)
    if za is not None:
        left = left - (np.int32(za) if np.ndim(za) == 0 or np.size(za) == 1 else np.asarray(za, np.int32)[..., None])
    if zb is not None:
        right = right - (np.asarray(zb, np.int32) if np.ndim(zb) != 1 else np.asarray(zb, np.int32)[None, :])
    bound = float(np.abs(left).max(initial=0)) * float(np.abs(right).max(initial=0)) * a.shape[-1]
    exact = kind(bound)
    return np.asarray(left.astype(exact) @ right.astype(exact)).astype(np.int32)


def _filled(inputs: Sequence[Any], count: int) -> list[Any]:
    """All inputs of an operator, None for those left out at the end."""
    return [*inputs, *[None] * (count - len(inputs))]


def _matmul_integer(_node: Node, inputs: Sequence[Any]) -> Any:
    a, b, za, zb = _filled(inputs, 4)
    return integer_product(a, b, za, zb)


def _dynamic_quantize_matmul(_node: Node, inputs: Sequence[Any]) -> Any:
    a, b, scale, zero, bias = _filled(inputs, 5)
    codes, own, za = dynamic_quantize(a)
    out = integer_product(codes, b, za, zero).astype(np.float32) * (own * scale)
    return out if bias is None else out + bias


def _unrounded(inputs: Sequence[Any]) -> list[Any]:
    """Integers with their fractions: what MatMulInteger makes of them is the real product."""
    _, scale, zero = dynamic_quantize(inputs[0])
    return [inputs[0] / scale + np.float32(zero), np.asarray(scale), np.asarray(zero)]


def _real_product(inputs: Sequence[Any]) -> list[Any]:
    a, b, za, zb = _filled(inputs, 4)
    left = a.astype(np.float64) - (0 if za is None else np.asarray(za, np.float64))
    return [left @ (b.astype(np.float64) - (0 if zb is None else np.asarray(zb, np.float64)))]


def _real_matmul(inputs: Sequence[Any]) -> list[Any]:
    a, b, scale, zero, bias = _filled(inputs, 5)
    w = (b.astype(np.float32) - (0 if zero is None else np.asarray(zero, np.float32))) * scale
    return [a @ w + (0 if bias is None else bias)]


# Of operators that quantize on the fly: float without that rounding.
UNROUNDED: Mapping[str, Callable[[Sequence[Any]], list[Any]]] = {
    "DynamicQuantizeLinear": _unrounded,
    "MatMulInteger": _real_product,
    "DynamicQuantizeMatMul": _real_matmul,
}
RULES: Mapping[str, Callable[[Node, Sequence[Any]], Any]] = {
    "MatMulNBits": matmul_nbits,
    "MatMulInteger": _matmul_integer,
    "DynamicQuantizeMatMul": _dynamic_quantize_matmul,
}
