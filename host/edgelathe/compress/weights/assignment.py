"""Second-order assignment: which representative stands for each weight, so that least of the layer's output is lost.

The grid of `second_order` with any levels instead of integers in a row: input after input, each made up for the errors
of those before it (Frantar and Alistarh, GPTQ, 2023; Babai's nearest plane, 1986).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgelathe.compress.weights.representatives import nearest

Array = NDArray[np.float64]
_BLOCK = 64  # inputs that are settled between two matrix products
# Rectified normal inputs have a squared mean of this share of their variance: 1 / (2 pi) over 1 / 2 - 1 / (2 pi).
_MEAN = 0.467


def presumed(groups: int, features: int) -> Array:
    """Moments [g, f, f] of inputs that nothing is known of: independent, and of one sign, as behind a ReLU.

    Errors of weights are then made to cancel in each output's sum, which takes the place of a bias correction.
    """
    return np.broadcast_to(np.eye(features) + _MEAN, (groups, features, features))


def assign(wanted: Array, hessian: Array, levels: Array, steps: Array) -> tuple[NDArray[np.int64], Array]:
    """Indices [g, o, f] into the levels, [k] ascending or [g, o, k], and what they stand for, real weights [g, o, f].

    `wanted` [g, o, f] are real weights, `hessian` [g, f, f] is positive definite, levels count in `steps` [g, o].
    """
    turned = np.linalg.cholesky(hessian[:, ::-1, ::-1])
    factor = np.swapaxes(turned[:, ::-1, ::-1], 1, 2)  # lower triangular V with H = V'V
    ratio = factor / np.diagonal(factor, axis1=1, axis2=2)[:, :, None]
    features = wanted.shape[2]
    errors, out = np.zeros(wanted.shape), np.empty(wanted.shape, np.int64)
    for start in range(0, features, _BLOCK):
        stop = min(start + _BLOCK, features)
        moved = wanted[:, :, start:stop] + errors[:, :, :start] @ np.swapaxes(ratio[:, start:stop, :start], 1, 2)
        for i in range(start, stop):
            w = moved[:, :, i - start]
            if i > start:
                w = w + np.einsum("gof,gf->go", errors[:, :, start:i], ratio[:, i, start:i])
            out[:, :, i] = nearest(w / steps, levels)
            errors[:, :, i] = wanted[:, :, i] - _taken(levels, out[:, :, i]) * steps
    return out, wanted - errors


def _taken(levels: Array, index: NDArray[np.int64]) -> Array:
    if levels.ndim == 1:
        return np.asarray(levels[index])
    return np.take_along_axis(levels, index[..., None], axis=-1)[..., 0]
