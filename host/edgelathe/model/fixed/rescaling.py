"""From sums to whole numbers on another scale: one factor, in the ways of all kernels and targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgelathe.model.fixed import rounding
from edgelathe.model.fixed.limits import half_away

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: `double`, `single`: by multiplier and shift on 32 bits, rounding twice or once. `wide`: the same on 48 bits, with a
#: multiplier of 15 bits. `away`: in float64, halves away from zero. `even`: in float64, halves to even. `even32`: in
#: float32, halves to even.
Way = Literal["double", "single", "wide", "away", "even", "even32"]
Scaler = Callable[["NDArray[Any]"], "NDArray[Any]"]


def by(factors: ArrayLike, way: Way) -> Scaler:
    """A function of whole numbers in any type: them times `factors`, which broadcast, as whole numbers.

    These are int64, or float32 for `even32`. A negative factor (of a negative slope) turns the sign of the multiplier.
    """
    real = np.asarray(factors)
    if way == "even32":
        single = real.astype(np.float32)
        return lambda x: _even32(x, single)
    if way == "even":
        return lambda x: np.rint(x * real.astype(np.float64)).astype(np.int64)
    if way == "away":
        return lambda x: half_away(x * real.astype(np.float64)).astype(np.int64)
    fixed, shift = rounding.multiplier(np.abs(real))
    fixed = np.sign(real).astype(np.int64) * fixed
    if way == "wide":
        return lambda x: rounding.multiply_wide(x.astype(np.int64, copy=False), fixed, shift)
    once: Literal["single", "double"] = way
    return lambda x: rounding.multiply(x.astype(np.int64, copy=False), fixed, shift, once)


def _even32(x: NDArray[Any], factors: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = np.array(x, np.float32)
    scaled *= factors
    return np.rint(scaled, out=scaled)
