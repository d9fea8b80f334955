"""Integer weights as wide as a kernel that adds two products in saturating 16 bits can take them.

On x86 without VNNI a pair of products leaves 16 bits where two neighbouring weights of one sign are large together
(see `model.fixed.onnx_narrow`). Weights within -64..64 never do, 255 * 64 * 2 < 2**15, but few channels ask for that: a
channel gives up range only as far as its own worst pair of neighbours does, whatever the inputs are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.calibrate.scales import store_weights
from edgelathe.compress.graph.moves import number
from edgelathe.model.fixed import onnx_narrow

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

FULL, SAFE = 127, 64


def pairs_up(node: ir.Node, w: NDArray[Any]) -> bool:
    """Whether such a kernel adds the products of this layer in pairs: all layers but depthwise convolutions."""
    return not (node.op_type == "Conv" and w.shape[:2] == (number(node, "group", 1), 1))


def widened(w: NDArray[np.float32], scale: NDArray[np.float32], out_axis: int, axis: int | None) -> NDArray[np.float32]:
    """Scales of 8-bit weights with which no pair of products can leave 16 bits.

    Args:
        w: of a Conv [out, in, *kernel] or a product, [in, out] or [out, in].
        scale: that -127..127 asks for: one per output, or shape ().
        out_axis: of `w`, that counts outputs.
        axis: the same where there is a scale per output, None where there is one for all.

    No scale becomes more than 127 / 64 as large: then all weights are within -64..64.
    """
    most = (scale * np.float32(FULL / SAFE)).astype(np.float32)
    while True:
        reach = onnx_narrow.reach(_rows(store_weights(w, scale, axis, FULL), out_axis))
        if axis is None:
            reach = reach.max(initial=0)
        # A step beyond what the reach asks for: rounding may have made it a little less than it is.
        wider = np.minimum(scale * np.maximum(reach, 1 + 1 / (2 * FULL)), most).astype(np.float32)
        over = (reach > 1) & (scale < most)
        if not np.any(over):
            return scale
        scale = np.where(over, wider, scale).astype(np.float32)


def _rows(q: NDArray[np.int8], out_axis: int) -> NDArray[np.int8]:
    """Weights [out, k] in the order in which the kernels add their products: channels side by side."""
    if q.ndim > 2:
        q = np.moveaxis(q, 1, -1)
    return np.moveaxis(q, out_axis, 0).reshape(q.shape[out_axis], -1)
