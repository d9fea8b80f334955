"""The mean of what a layer reads, from the BatchNormalization before it: no samples are needed.

A normalized channel is taken for a normal variable of mean beta and deviation |gamma|; a clamp behind it makes it a
clipped one (Nagel et al., Data-Free Quantization, 2019, section 4.2.1).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.graph import moves as g

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_SAME = frozenset(("Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "GlobalAveragePool", "AveragePool"))


def mean_of(value: ir.Value | None) -> Array | None:
    """The mean [channels] of a value of a graph whose BatchNormalization is not folded; None where it does not tell.

    Borders that an average pools over are left out.
    """
    node = value.producer() if value is not None else None
    if node is None:
        return None
    if node.op_type == "BatchNormalization":
        found = _normal(value)
        return None if found is None else found[0]
    if node.op_type in ("Relu", "Clip"):
        inner, ends = _normal(node.inputs[0]), _ends(node)
        return None if inner is None or ends is None else clipped(*inner, *ends)
    if node.op_type in _SAME or (node.op_type == "ReduceMean" and _is_spatial(node)):
        return mean_of(node.inputs[0])
    if node.op_type == "Add":
        a, b = (mean_of(v) for v in node.inputs)
        return None if a is None or b is None or a.shape != b.shape else a + b
    return None


def clipped(mean: Array, deviation: Array, low: float, high: float) -> Array:
    """E[min(max(x, low), high)] of normal x, channel by channel; `low` and `high` may be infinite."""
    spread = np.maximum(deviation, 1e-12)
    a, b = (low - mean) / spread, (high - mean) / spread
    inside = _below(b) - _below(a)
    out = mean * inside + spread * (_density(a) - _density(b))
    if math.isfinite(low):
        out = out + low * _below(a)
    if math.isfinite(high):
        out = out + high * (1 - _below(b))
    return np.asarray(out)


def _normal(value: ir.Value | None) -> tuple[Array, Array] | None:
    """Mean and deviation [channels] of what a BatchNormalization gives."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in ("Identity", "Dropout"):
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    if node is None or node.op_type != "BatchNormalization":
        return None
    gamma, beta = g.array(node.inputs[1]), g.array(node.inputs[2])
    if gamma is None or beta is None:
        return None
    return beta.astype(np.float64), np.abs(gamma.astype(np.float64))


def _ends(node: ir.Node) -> tuple[float, float] | None:
    """Of a clamp; None where they are computed."""
    if node.op_type == "Relu":
        return 0.0, math.inf
    out = []
    for i, name, open_ in ((1, "min", -math.inf), (2, "max", math.inf)):
        value = node.inputs[i] if len(node.inputs) > i else None
        found = g.scalar(value) if value is not None else g.number(node, name, open_)
        if found is None:
            return None
        out.append(float(found))
    return out[0], out[1]


def _is_spatial(node: ir.Node) -> bool:
    """Whether it takes means over all axes but those of samples and channels."""
    given = g.array(node.inputs[1]) if len(node.inputs) > 1 else None
    axes, count = g.ints(node, "axes") if given is None else given.tolist(), g.rank(node.inputs[0])
    if axes is None:
        return False
    if count is None:
        return sorted(axes) in ([2, 3], [-2, -1])
    return sorted(a % count for a in axes) == list(range(2, count))


def _below(x: Array) -> Array:
    """The normal distribution function."""
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x.reshape(-1)]).reshape(x.shape)


def _density(x: Array) -> Array:
    return np.asarray(np.exp(-0.5 * np.square(np.clip(x, -1e3, 1e3))) / math.sqrt(2 * math.pi))
