"""Sums of products on x86 without VNNI: pairs of products of uint8 and int8 are added in saturating 16 bits.

The instruction is vpmaddubsw: for neighbours 2i and 2i + 1 along the summed axis, a[2i] * b[2i] + a[2i+1] * b[2i+1]
with a unsigned and b signed is clamped to -32768..32767 (Intel 64 and IA-32 Architectures Software Developer's Manual,
PMADDUBSW); pairs are then added exactly in 32 bits. ONNX Runtime's kernels work so wherever weights are int8 (it makes
int8 activations uint8 first); depthwise convolutions, uint8 weights and two activations are multiplied exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOW, _HIGH = -(1 << 15), (1 << 15) - 1


@dataclass(frozen=True)
class Saturation:
    """What became of the 16-bit sums of one layer.

    Attributes:
        pairs: sums of two products that saturated.
        of: sums of two products in all.
        outputs: sums of the layer that at least one saturated pair went into; `answers`: sums of the layer in all.
    """

    pairs: int = 0
    of: int = 0
    outputs: int = 0
    answers: int = 0

    @property
    def share(self) -> float:
        """Share of 16-bit sums that saturated."""
        return self.pairs / self.of if self.of else 0.0

    def __add__(self, other: Saturation) -> Saturation:
        return Saturation(
            self.pairs + other.pairs, self.of + other.of, self.outputs + other.outputs, self.answers + other.answers
        )


def extremes(w: NDArray[Any], largest: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The least and the greatest sum that each pair can reach: w int [..., pairs, 2], inputs in 0..largest."""
    wide = w.astype(np.int64)
    return np.minimum(wide, 0).sum(axis=-1) * largest, np.maximum(wide, 0).sum(axis=-1) * largest


def reach(w: NDArray[Any], largest: int = 255) -> NDArray[np.float64]:
    """How far the furthest pair of each output of an int8 weight matrix [out, k] can go, as a share of 16 bits: [out].

    Above 1 it can saturate, for inputs in 0..largest; at most 1 it never does. The order of k is the kernel's: channels
    side by side, kernel positions outside (see `onnx_linear.rows`).
    """
    low, high = extremes(paired(w), largest)
    furthest = np.maximum(high.max(axis=-1, initial=0) / _HIGH, low.min(axis=-1, initial=0) / _LOW)
    return np.asarray(furthest, np.float64)


def paired(w: NDArray[Any]) -> NDArray[Any]:
    """w [out, k] -> [out, pairs, 2]; an odd last one is paired with 0, as the kernels pad."""
    if w.shape[-1] % 2:
        w = np.concatenate([w, np.zeros((*w.shape[:-1], 1), w.dtype)], axis=-1)
    return w.reshape(*w.shape[:-1], -1, 2)


def lost(columns: NDArray[Any], w: NDArray[Any], largest: int) -> tuple[NDArray[Any], Saturation]:
    """What saturation takes away from each sum, and how often it happens.

    Args:
        columns: unsigned inputs [n, k, positions], in the order in which the kernel adds them.
        w: int8 weights [out, k].
        largest: of the inputs' integers.

    Returns:
        int64 [n, out, positions], to be added to the exact sums. Only pairs whose weights can reach the bound are
        looked at.
    """
    n, _, positions = columns.shape
    pairs = paired(w)
    low, high = extremes(pairs, largest)
    change = np.zeros((n, w.shape[0], positions), np.int64)
    touched = np.zeros(change.shape, bool)
    saturated = 0
    for i in np.flatnonzero(((low < _LOW) | (high > _HIGH)).any(axis=0)):
        rows = np.flatnonzero((low[:, i] < _LOW) | (high[:, i] > _HIGH))
        first = columns[:, None, 2 * i].astype(np.int32)
        both = first * pairs[rows, i, 0].astype(np.int32)[:, None]
        if 2 * i + 1 < columns.shape[1]:
            both = both + columns[:, None, 2 * i + 1].astype(np.int32) * pairs[rows, i, 1].astype(np.int32)[:, None]
        short = np.clip(both, _LOW, _HIGH) - both
        hit = short != 0
        saturated += int(np.count_nonzero(hit))
        change[:, rows] += short
        touched[:, rows] |= hit
    answers = change.size
    return change, Saturation(saturated, answers * pairs.shape[1], int(np.count_nonzero(touched)), answers)
