"""By how much the channels that a layer reads were rescaled between two forms of one model, told by the layer itself.

Equalization multiplies weights by a factor per input channel and one per output channel, and biases by the latter.
Weights alone leave open what is a factor of all inputs and what of all outputs of a group; a bias settles it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.graph import moves as g
from edgelathe.compress.weights import problems

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_SAME = 1e-4  # of the largest weight, or bias: what making a form twice may differ by


def input_factors(before: ir.Node, after: ir.Node) -> Array | None:
    """What the weights of each input channel [channels] were multiplied by; its values are as many times smaller.

    None where the weights were changed in another way, or no bias tells the factors of outputs from those of inputs.
    """
    old, new = _weights(before), _weights(after)
    if old is None or new is None or old.shape != new.shape:
        return None
    groups, outputs, inputs, _ = old.shape
    if _close(old, new):
        return np.ones(groups * inputs)
    a, b = (_bias(n, (groups, outputs)) for n in (before, after))
    if a is None or b is None:
        return None
    at = np.argmax(np.abs(a), axis=1)
    each = np.arange(groups)
    if not (a[each, at] * b[each, at] > 0).all():
        return None
    # The inputs' factors by the output of largest bias, the others' by them, and so those of inputs that it ignores.
    x = _ratio(new[each, at], old[each, at] * (b[each, at] / a[each, at])[:, None, None], (2,))
    seen = (old[each, at] != 0).any(axis=2)[:, None, :, None]
    y = _ratio(new * seen, old * x[:, None, :, None] * seen, (2, 3))
    x = _ratio(new, old * y[:, :, None, None], (1, 3))
    if not (_close(old * y[:, :, None, None] * x[:, None, :, None], new) and _close(a * y, b)):
        return None
    return x.reshape(-1)


def _ratio(new: Array, old: Array, axes: tuple[int, ...]) -> Array:
    """Least squares of new = ratio * old; 1 where `old` is zero."""
    size = np.square(old).sum(axis=axes)
    return np.asarray(np.divide((new * old).sum(axis=axes), size, out=np.ones_like(size), where=size > 0))


def _close(a: Array, b: Array) -> bool:
    return bool(np.abs(a - b).max(initial=0) <= _SAME * np.abs(b).max(initial=0))


def _weights(node: ir.Node) -> Array | None:
    """The weights [groups, outputs of one, inputs of one, kernel]."""
    w = g.array(node.inputs[1]) if len(node.inputs) > 1 else None
    if w is None or node.op_type not in ("Conv", "Gemm", "MatMul") or (node.op_type != "Conv" and w.ndim != 2):
        return None
    found = problems.grouped(node)
    return found.reshape(*found.shape[:2], w.shape[1] if node.op_type == "Conv" else found.shape[2], -1)


def _bias(node: ir.Node, shape: tuple[int, int]) -> Array | None:
    found = g.array(node.inputs[2]) if len(node.inputs) > 2 else None
    return None if found is None or found.size != shape[0] * shape[1] else found.astype(np.float64).reshape(shape)
