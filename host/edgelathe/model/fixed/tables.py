"""Functions of one value as tables: of every integer of 8 bits, and interpolated for 16 bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed.limits import Limits, half_away, stored
from edgelathe.model.fixed.real import REAL
from edgelathe.model.fixed.rounding import divide_by_power, multiplier

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.elementwise import Done
    from edgelathe.model.fixed.tflite_graph import Site
    from edgelathe.model.fixed.types import Grid, Integers

_SIGMOID = ("LOGISTIC", "TANH")


def of(site: Site, a: Grid, out: Grid) -> Callable[[NDArray[Any]], Done]:
    """The table of the site's operator from one grid to another. Raises UserError where TFLite has none."""
    if a.bits == out.bits == 16 and not site.outputs[0].assigned:
        if site.op not in _SIGMOID:
            raise site.refused("of 16 bits is not simulated")
        return Sigmoid16(a.scale, tanh=site.op == "TANH")
    return Table.make(_logistic if site.op == "LOGISTIC" else _in_double(REAL[site.op](site)), a, out)


def _logistic(x: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)), each step rounded to float32: halves of a step of the output depend on it."""
    one = np.float32(1)
    return np.asarray(one / (one + np.exp(-x[0].astype(np.float64)).astype(np.float32)))


def _in_double(function: Callable[..., NDArray[Any]]) -> Callable[..., NDArray[Any]]:
    """Functions of float32 differ in the last place from library to library: float64, rounded once, is near to all."""
    return lambda x: function([x[0].astype(np.float64)])


@dataclass(frozen=True, eq=False)
class Table:
    """A function of every integer of a grid, computed in float32."""

    values: Integers
    low: int
    out: Grid

    @classmethod
    def make(cls, function: Callable[..., NDArray[Any]], a: Grid, out: Grid) -> Table:
        """`function` takes a list of one array."""
        integers = np.arange(a.low, a.high + 1)
        real = np.float32(a.scale) * (integers - a.zero_point).astype(np.float32)
        value = function([real]).astype(np.float32)
        whole = half_away(value * (np.float32(1) / np.float32(out.scale)))
        return cls((whole + np.float32(out.zero_point)).astype(np.int64), a.low, out)

    def __call__(self, x: NDArray[Any]) -> Done:
        """The output's integers, and how many were clipped."""
        return Limits.of(self.out).clamp(self.values[x.astype(np.int64) - self.low], stored(self.out))


def hard_swish(a: Grid, out: Grid) -> Table:
    """x relu6(x + 3) / 6 of every integer of 8 bits, in the 16-bit fixed point of TFLite's reference kernel."""
    fine, unit = np.float32(a.scale) * np.float32(1 / 128), np.float32(3 / 32768)
    (scale, down), (slope, up) = (_short(float(f)) for f in (fine / np.float32(out.scale), fine / unit))
    x = (np.arange(a.low, a.high + 1) - a.zero_point) << 7
    unshifted = _high16(x, scale)
    share = _left16(x, up - 1) if up > 0 else x
    share = _high16(share, slope)
    share = _left16(share, 1) if up > 0 else divide_by_power(share, -up)
    share = (share + (1 << 15)) >> 1
    product = np.trunc(share * unshifted / (1 << 15)).astype(np.int64)  # towards zero, unlike all else
    return Table(divide_by_power(product, -down) + out.zero_point, a.low, out)


def _short(factor: float) -> tuple[int, int]:
    """A multiplier of 15 bits and its shift."""
    fixed, shift = (int(v) for v in multiplier(factor))
    return min((fixed + (1 << 15)) >> 16, 32767), shift


def _high16(x: Integers, by: int) -> Integers:
    """The upper half of 2xy of 16-bit values, to nearest."""
    return np.asarray(np.clip((x * by + (1 << 14)) >> 15, -32768, 32767))


def _left16(x: Integers, bits: int) -> Integers:
    return np.asarray(np.clip(x << bits, -32768, 32767))


@dataclass(frozen=True, eq=False)
class Sigmoid16:
    """LOGISTIC and TANH of 16 bits: 256 values of the sigmoid at steps of 1/24, linear between them."""

    scale: float
    tanh: bool

    def __call__(self, x: NDArray[Any]) -> Done:
        """Integers on a grid of 1/32768."""
        factor, shift = self._factor()
        at = (x.astype(np.int64) * factor + ((1 << shift) >> 1)) >> shift
        size, fraction = np.abs(at), 8 if self.tanh else 9
        index = np.minimum(size >> fraction, 254)
        table, part = sigmoid_table(), size & ((1 << fraction) - 1)
        value = (table[index] << fraction) + part * (table[index + 1] - table[index])
        if self.tanh:
            value = np.where(size >> 8 >= 255, 0xFFFF << 8, value)
            value = np.where(at >= 0, value - (1 << 23) + (1 << 7), -value + (1 << 23) + (1 << 7) - 1) >> 8
        else:
            value = np.where(size >> 9 >= 255, 0x7FFF << 10, value)
            value = np.where(at >= 0, value + (1 << 9), (1 << 25) - value + (1 << 9) - 1) >> 10
        return value.astype(np.int16), 0

    def _factor(self) -> tuple[int, int]:
        """Multiplier and right shift that bring the input to steps of 1 / (3 * 4096)."""
        power = power_of_two(self.scale)
        if power is not None and power + 12 in ((0, 1) if self.tanh else (0,)):
            return 3 << (power + 12), 0
        factor, shift = float(np.float32(self.scale)) * 4096.0 * 3.0, 0
        while factor <= 32767.0 / 2.0 and shift <= 30:
            factor, shift = factor * 2.0, shift + 1
        return int(factor), shift


def sigmoid_table() -> Integers:
    """sigmoid(i / 24) in 1/65536, moved by half of what a straight line to the next value misses midway."""
    at = np.arange(256)
    here, between, after = (65536 / (1 + np.exp(-(at + d) / 24)) for d in (0.0, 0.5, 1.0))
    table = np.rint(here - ((here + after) / 2 - between) / 2).astype(np.int64)
    table[255] = 65535
    return np.asarray(table)


@dataclass(frozen=True, eq=False)
class SoftmaxTable:
    """Softmax of 8 bits as TFLite's optimized kernel computes it: exponentials from a float32 table."""

    a: Grid
    out: Grid
    beta: float

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """The output's integers."""
        levels = np.arange(1 << self.a.bits, dtype=np.float32)
        scale = np.float32(-self.a.scale) * np.float32(self.beta)
        table = np.exp((scale * levels).astype(np.float64)).astype(np.float32)
        exps = table[x.max(axis=-1, keepdims=True).astype(np.int64) - x.astype(np.int64)]
        total = np.zeros(exps.shape[:-1], np.float32)
        for column in np.moveaxis(exps, -1, 0):  # one after the other, as the kernel adds them
            total += column
        inverse = np.float32(1) / (total * np.float32(self.out.scale))
        whole = np.rint(exps * inverse[..., None]).astype(np.int64) + self.out.zero_point
        return Limits.of(self.out).clamp(whole, stored(self.out))[0]


def power_of_two(scale: float) -> int | None:
    """The exponent of a scale that is a power of two, to TFLite's tolerance."""
    exponent = float(np.float32(math.log(scale)) * np.float32(1 / math.log(2.0)))
    nearest = round(exponent)
    return nearest if abs(exponent - nearest) < 1e-3 else None
