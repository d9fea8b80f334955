"""Linear layers as least-squares problems: samples of what they read and make, normal equations, refits.

A layer is seen as y = M x + b with x the values under the kernel at one place, channel by channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.compress.graph import moves as g

if TYPE_CHECKING:
    import onnx_ir as ir

Matrix = NDArray[np.float64]
# How strongly a fit may be drawn to the weights as they were, relative to the signal.
RIDGES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
_NOISE = 1e-6  # of the mean square of what a layer reads: less variance than that is rounding of sums in float32


@dataclass
class Normal:
    """Sums over rows x [features] and y [outputs]: `xx` [f, f], `xy` [f, o], `x` [f], `y` [o], `n` rows."""

    xx: Matrix
    xy: Matrix
    x: Matrix
    y: Matrix
    n: int = 0

    @classmethod
    def empty(cls, features: int, outputs: int = 0) -> Normal:
        """No rows yet."""
        return cls(np.zeros((features, features)), np.zeros((features, outputs)), np.zeros(features), np.zeros(outputs))

    def add(self, x: NDArray[np.float32], y: NDArray[np.float32] | None = None) -> None:
        """Take in rows x [r, f] and y [r, o]."""
        self.xx += x.T @ x
        self.x += x.sum(axis=0, dtype=np.float64)
        self.n += len(x)
        if y is not None:
            self.xy += x.T @ y
            self.y += y.sum(axis=0, dtype=np.float64)

    def second(self) -> Matrix:
        """E[x x'] [f, f]."""
        return self.xx / self.n

    def covariance(self) -> Matrix:
        """Of x [f, f]."""
        mean = self.x / self.n
        return self.xx / self.n - np.outer(mean, mean)

    def __add__(self, other: Normal) -> Normal:
        return Normal(self.xx + other.xx, self.xy + other.xy, self.x + other.x, self.y + other.y, self.n + other.n)

    def error(self, m: Matrix, b: Matrix) -> float:
        """Squared error of M x + b over these rows, up to a constant of the rows."""
        full = (m @ self.xx * m).sum() - 2 * (m * self.xy.T).sum() + 2 * b @ (m @ self.x - self.y) + self.n * b @ b
        return float(full)

    def fit(self, prior: Matrix, ridge: float, *, bias: bool) -> tuple[Matrix, Matrix]:
        """M [o, f] and b [o] of least squared error |M x + b - y|, drawn towards `prior` [o, f].

        Ridge regression in closed form; `ridge` is relative to the mean variance of x. Without `bias`, b is 0.
        """
        mx, my = (self.x / self.n, self.y / self.n) if bias else (np.zeros_like(self.x), np.zeros_like(self.y))
        a = self.xx / self.n - np.outer(mx, mx)
        noise = _NOISE * float(np.trace(self.xx)) / self.n / len(a)
        damp = ridge * max(float(np.trace(a)) / len(a), noise, 1e-12)
        c = self.xy / self.n - np.outer(mx, my) + damp * prior.T
        m = np.linalg.solve(a + damp * np.eye(len(a)), c).T
        return m, my - m @ mx


def best_fit(parts: tuple[Normal, Normal], prior: Matrix, old: Matrix, *, bias: bool) -> tuple[Matrix, Matrix] | None:
    """The fit to both parts, with the ridge that, fitted to the first part, has the least error on the second.

    None where there that of the weights as they are, `prior` and the bias `old` [o], is less, or a part has no rows.
    """
    seen, held = parts
    if not seen.n or not held.n:
        return None
    errors = {ridge: held.error(*seen.fit(prior, ridge, bias=bias)) for ridge in RIDGES}
    best = min(RIDGES, key=errors.__getitem__)
    return (seen + held).fit(prior, best, bias=bias) if errors[best] < held.error(prior, old) else None


def matrix(node: ir.Node) -> Matrix | None:
    """The weights as [outputs, channels, kernel places]; None where the node is no plain linear layer."""
    w = g.array(node.inputs[1])
    if w is None or w.dtype != np.float32:
        return None
    if node.op_type == "Conv" and g.number(node, "group", 1) == 1:
        return w.reshape(w.shape[0], w.shape[1], -1).astype(np.float64)
    if node.op_type == "Gemm" and g.number(node, "alpha", 1.0) == 1.0 and not g.number(node, "transA", 0):
        return (w if g.number(node, "transB", 0) else w.T)[:, :, None].astype(np.float64)
    if node.op_type == "MatMul" and w.ndim == 2:
        return w.T[:, :, None].astype(np.float64)
    return None


def bias_of(node: ir.Node) -> tuple[ir.Node, int] | None:
    """Where the layer's bias is, or may be put: (node, input index); None where it has no place."""
    if node.op_type in ("Conv", "Gemm") and g.number(node, "beta", 1.0) == 1.0:
        return node, 2
    after = g.only_consumer(node.outputs[0])
    if after is None or after.op_type != "Add" or g.rank(node.outputs[0]) is None:
        return None
    w = g.array(node.inputs[1])
    for i, value in enumerate(after.inputs):
        data = g.array(value)
        if data is not None and w is not None and data.shape == (w.shape[1],):
            return after, i
    return None


def store(node: ir.Node, m: Matrix, b: Matrix | None, names: g.Names) -> None:
    """Put M [o, channels, kernel places] and, where given, b [o] into the graph."""
    w = g.array(node.inputs[1])
    assert w is not None
    flat = m if node.op_type == "Conv" else m[:, :, 0]
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not g.number(node, "transB", 0)):
        flat = flat.T
    g.set_constant(node, 1, flat.reshape(w.shape).astype(np.float32), names)
    place = bias_of(node)
    if b is not None and place is not None:
        g.set_constant(place[0], place[1], b.astype(np.float32), names)


def bias_value(node: ir.Node, outputs: int) -> Matrix:
    """The present bias [outputs]; zeros where there is none."""
    place = bias_of(node)
    data = g.array(place[0].inputs[place[1]]) if place is not None and len(place[0].inputs) > place[1] else None
    return np.broadcast_to(0.0 if data is None else data.reshape(-1), outputs).astype(np.float64)


def rows(node: ir.Node, x: NDArray[np.float32], picks: NDArray[np.int64]) -> NDArray[np.float32]:
    """What the layer reads, [r, channels * kernel places], at `picks` [samples, places] of its output."""
    if node.op_type != "Conv":
        return x.reshape(-1, x.shape[-1])
    windows, space = _windows(node, x)
    picks = _each(picks, len(x))
    place: tuple[Any, ...] = (np.arange(len(x))[:, None], slice(None), *np.unravel_index(picks, space))
    taken: NDArray[np.float32] = windows[place]
    return taken.reshape(picks.size, math.prod(taken.shape[2:]))  # from [samples, places, channels, *kernel]


def made(node: ir.Node, y: NDArray[np.float32], picks: NDArray[np.int64]) -> NDArray[np.float32]:
    """What the layer makes, [r, outputs], at the same places."""
    if node.op_type != "Conv":
        return y.reshape(-1, y.shape[-1])
    flat = y.reshape(*y.shape[:2], math.prod(y.shape[2:]))
    picks = _each(picks, len(y))
    return flat[np.arange(len(y))[:, None], :, picks].reshape(picks.size, flat.shape[1])


def pick(
    node: ir.Node, y: NDArray[np.float32], here: int, samples: int, wanted: int, seed: tuple[int, ...]
) -> NDArray[np.int64]:
    """Places of the output [samples, places] that make about `wanted` rows, at random without repetition.

    `y`: the output of `here` of the samples; a sample may have several maps of it, which are looked at in equal places.
    """
    total = math.prod(y.shape[2:]) if node.op_type == "Conv" else 1
    maps = max(1, len(y) // here)
    count = min(total, max(1, -(-wanted // (samples * maps))))
    rng = np.random.default_rng(seed)
    if count == total:
        return np.broadcast_to(np.arange(total), (samples, total))
    return np.stack([rng.permutation(total)[:count] for _ in range(samples)])


def _each(picks: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Those of each of `count` maps: a sample may have several, such as the frames of a video."""
    each: NDArray[np.int64] = picks[np.arange(count) * len(picks) // count]
    return each


def _windows(node: ir.Node, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[int, ...]]:
    """A view [n, c, *space, *kernel] of what the kernel covers at each place, and the output's space."""
    w = g.array(node.inputs[1])
    assert w is not None
    dims, before = w.ndim - 2, x.shape[2:]
    stride = g.ints(node, "strides") or [1] * dims
    dilation = g.ints(node, "dilations") or [1] * dims
    reach = [d * (k - 1) + 1 for k, d in zip(w.shape[2:], dilation, strict=True)]
    pads = _pads(node, before, stride, reach)
    axes = tuple(range(2, 2 + dims))
    padded = np.pad(x, [(0, 0), (0, 0), *pads]) if any(map(any, pads)) else x
    windows: NDArray[np.float32] = np.lib.stride_tricks.sliding_window_view(padded, tuple(reach), axis=axes)  # type: ignore[call-overload]  # numpy types one axis only
    step = tuple(slice(None, None, s) for s in stride)
    hole = tuple(slice(None, None, d) for d in dilation)
    windows = windows[(slice(None), slice(None), *step, *hole)]
    return windows, windows.shape[2 : 2 + dims]


def _pads(node: ir.Node, before: tuple[int, ...], stride: list[int], reach: list[int]) -> list[tuple[int, int]]:
    dims, auto = len(before), g.number(node, "auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        need = [max((-(-i // s) - 1) * s + r - i, 0) for i, s, r in zip(before, stride, reach, strict=True)]
        small, big = [p // 2 for p in need], [p - p // 2 for p in need]
        return list(zip(small, big, strict=True) if auto == "SAME_UPPER" else zip(big, small, strict=True))
    pads = g.ints(node, "pads") if auto != "VALID" else None
    pads = pads or [0] * (2 * dims)
    return list(zip(pads[:dims], pads[dims:], strict=True))
