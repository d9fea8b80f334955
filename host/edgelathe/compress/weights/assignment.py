"""Second-order assignment: which representative stands for each weight, so that least of the layer's output is lost.

The grid of `second_order` with any levels instead of integers in a row: input after input, each made up for the errors
of those before it (Frantar and Alistarh, GPTQ, 2023; Babai's nearest plane, 1986).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgelathe.compress.weights import ways
from edgelathe.compress.weights.representatives import nearest

Array = NDArray[np.float64]
_SHORT = 16  # levels of an output, which are gone through one by one
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
    Several ways are followed (`ways`), fewer where tables are long.
    """
    last = levels.shape[-1] - 1

    def near(real: Array, at: tuple[slice, slice]) -> tuple[Array, Array]:
        own = levels if levels.ndim == 1 else levels[at][:, :, None]
        index = nearest(real, own)
        first = _taken(own, index)
        return first, _taken(own, np.clip(index + np.where(real < first, -1, 1), 0, last))

    longer = levels.shape[-1] // _SHORT if levels.ndim > 1 else 1
    many = max(1, ways.count(wanted.size * max(1, longer)))
    taken, _ = ways.rounded(wanted, ways.factored(hessian), steps, near, many)
    index = np.empty(wanted.shape, np.int64)
    for i in range(wanted.shape[2]):  # tables of their own for every weight at once would be large
        index[:, :, i] = nearest(taken[:, :, i], levels)
    return index, taken * steps[:, :, None]


def _taken(levels: Array, index: NDArray[np.intp]) -> Array:
    if levels.ndim == 1:
        return np.asarray(levels[index])
    return np.take_along_axis(np.broadcast_to(levels, (*index.shape, levels.shape[-1])), index[..., None], -1)[..., 0]
